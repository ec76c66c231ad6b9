"""The check raises no alarm on what moec emits, and says what is wrong of what is not."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from moec.compiler.check import check
from moec.compiler.check.headers import read_header
from moec.compiler.check.schedule import schedule_faults
from moec.compiler.check.text import check_text
from moec.compiler.emit import emit
from moec.compiler.pipeline import compile_plan
from moec.dsl import read_plan

ROOT = Path(__file__).parent.parent.parent
PLANS = sorted(
    path.relative_to(ROOT)
    for folder in ("examples", "tests/equivalence/plans")
    for path in (ROOT / folder).glob("*.plan")
)
TINY = "examples/tiny_moe.plan"


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_no_alarm(plan: Path, compile_once) -> None:
    program, files = compile_once(plan)
    report = check(program, files)
    assert not report.faults
    assert report.classes == len(program.stages), "one rank of each stage stands for all"


def test_a_larger_mesh_is_no_more_work(compile_once) -> None:
    program, _ = compile_once("examples/30b_moe.plan")
    plan = read_plan(str(ROOT / "examples/30b_moe.plan"), ["mesh.dp=16", "schedule.batch=2048"])
    large = compile_plan(plan)
    report = check(large, emit(large))
    assert report.ranks == 4096 and not report.faults
    assert report.terms == check(program, emit(program)).terms


def test_ranks_of_one_stage_that_go_different_ways_are_all_run(compile_once) -> None:
    """A schedule may be another, if it meets its peers: here one rank sends and receives, and the other exchanges."""
    program, files = compile_once(TINY)
    changed = dict(files)
    own = changed["rank_000.py"]
    found = re.search(r"( +)dy = run\.exchange\(y, (stage\.\w+), NEXT\)\n", own)
    assert found is not None
    changed["rank_000.py"] = own.replace(
        found[0], f"{found[1]}dy = run.receive({found[2]}, NEXT)\n{found[1]}run.send(y, NEXT)\n"
    )
    report = check(program, changed)
    assert report.classes == 3 and not report.faults


def test_sends_that_wait_for_each_other_name_the_circle(compile_once) -> None:
    program, files = compile_once(TINY)
    changed = {}
    for name, text in files.items():
        text = re.sub(
            r"( +)dy = run\.exchange\(y, (.*), NEXT\)", r"\1run.send(y, NEXT)\n\1dy = run.receive(\2, NEXT)", text
        )
        changed[name] = re.sub(
            r"( +)x = run\.exchange\(dx, (.*), PREVIOUS\)",
            r"\1run.send(dx, PREVIOUS)\n\1x = run.receive(\2, PREVIOUS)",
            text,
        )
    faults = check(program, changed).faults
    told = "\n".join(str(fault) for fault in faults)
    assert "ranks wait for each other" in told
    assert "rank 0 waits for rank 4 in send of rank 4" in told and "rank 4 waits for rank 0 in send of rank 0" in told


def test_collectives_that_cross_between_ranks(compile_once) -> None:
    """Two sums of one shape, in one order on some ranks and in the other on one."""
    program, files = compile_once("examples/sequence_parallel.plan")
    rank = files["rank_003.py"].replace(
        "    stage.reduce_gradients(run)\n", '    run.reduce("dp0")\n    run.reduce("dp")\n    run.reduce("dp_tp")\n'
    )
    told = "\n".join(str(fault) for fault in check(program, files | {"rank_003.py": rank}).faults)
    assert "ranks wait for each other" in told or "differ in" in told


@pytest.mark.parametrize(
    "line",
    [
        "import os",
        "from os import system",
        "x = __import__('os').system('true')",
        "x = open('f')",
        "x = torch.load('f')",
        "x = torch.classes",
        "x = run.place",
        "x = run._tapes",
        "x = tape.run.__globals__",
        "x = [].__class__",
        "eval('1')",
        "x = lambda: 1",
        "x = f'{1}'",
        "if x:\n    pass",
        "while True:\n    pass",
        "x = 1 if y else 2",
        "with x:\n    pass",
        "x.data = y",
        "x = y.tolist()",
        "global x",
        "class A:\n    pass",
        "x = torch.ops.load_library('f')",
    ],
)
def test_text_that_no_program_has(line: str) -> None:
    faults = [*check_text("stage_0.py", f'"""Doc."""\n\n{line}\n', 1)]
    assert faults and faults[0].check == "text" and faults[0].site is not None and faults[0].site.line >= 3


def test_a_header_holds_no_code(compile_once) -> None:
    _, files = compile_once(TINY)
    text = files["rank_000.py"]
    for old, new in (("RANK = 0", "RANK = int('0')"), ('"pp": 2', '"pp": f()'), ("NEXT = None, 4", "NEXT = g(), 4")):
        assert old in text
        with pytest.raises(Exception, match="another form"):
            read_header("rank_000.py", text.replace(old, new, 1))


def test_the_schedule_that_a_rank_has_is_that_of_its_stage(compile_once) -> None:
    program, files = compile_once(TINY)
    for name, text in files.items():
        if name.startswith("rank_"):
            assert not [*schedule_faults(program, read_header(name, text))]
    header = read_header("rank_000.py", files["rank_000.py"])
    shorter = replace(header, schedule=header.schedule.replace("range(3)", "range(2)"))
    assert [*schedule_faults(program, shorter)]
