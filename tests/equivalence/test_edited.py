"""Programs that were edited by hand: what is still the same computation is said to be, and what is not is named."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from moec.compiler.emit import emit
from moec.compiler.folder import write_folder
from moec.compiler.pipeline import compile_plan
from moec.compiler.program import Program
from moec.compiler.verify import Verdict, statement, verify
from moec.dsl import Plan, PlanError, read_plan

TINY = Path(__file__).parent.parent.parent / "examples" / "tiny_moe.plan"

Edit = Callable[[str], str]


@pytest.fixture(scope="module")
def compiled() -> tuple[Plan, Program]:
    plan = read_plan(str(TINY), [])
    return plan, compile_plan(plan)


def edited(compiled: tuple[Plan, Program], folder: Path, file: str, edit: Edit) -> Verdict:
    """What verify says of a folder in which one file was changed."""
    plan, program = compiled
    build = folder / "build"
    write_folder(build, emit(program, output=build))
    path = build / file
    text = path.read_text(encoding="utf-8")
    changed = edit(text)
    assert changed != text, "the edit changes something"
    path.write_text(changed, encoding="utf-8")
    return verify(plan, program, build)


def without(pattern: str) -> Edit:
    return lambda text: re.sub(rf"^.*{pattern}.*\n", "", text, count=1, flags=re.MULTILINE)


def swapped(old: str, new: str) -> Edit:
    return lambda text: text.replace(old, new, 1)


SAME = {
    "a value has another name": ("stage_1.py", lambda text: re.sub(r"\battn_out\b", "mixed", text)),
    "a sum is taken apart": ("stage_1.py", swapped("    return dx + dx_2\n", "    dx = dx_2 + dx\n    return dx\n")),
    "two sums instead of one message": (
        "stage_0.py",
        lambda text: re.sub(
            r"    # .*\n    dprob, drows = all_reduce_together\(\(dprob, drows\), \"tp\"\)\n",
            '    drows = all_reduce(drows, "tp")\n    dprob = all_reduce(dprob, "tp")\n',
            text,
        ),
    ),
    "one product as two": (
        "stage_0.py",
        swapped(
            "    return F.linear(a.transpose",
            "    half = wo * 0.5\n    wo = half + half\n    return F.linear(a.transpose",
        ),
    ),
}


@pytest.mark.parametrize("file, edit", SAME.values(), ids=SAME)
def test_the_same_computation(compiled: tuple[Plan, Program], file: str, edit: Edit, tmp_path: Path) -> None:
    verdict = edited(compiled, tmp_path, file, edit)
    assert verdict.equal, verdict.faults
    assert any("still the same computation" in line for line in statement(verdict))


def test_precision_is_not_compared_and_that_is_said(compiled: tuple[Plan, Program], tmp_path: Path) -> None:
    edit = swapped("F.linear(h.to(FLOAT), router.to(FLOAT))", "F.linear(h, router)")
    verdict = edited(compiled, tmp_path, "stage_0.py", edit)
    assert verdict.equal, verdict.faults
    said = [line for line in statement(verdict) if "says nothing of precisions: see stage_0.py:" in line]
    assert len(said) == 1, statement(verdict)


OTHER = {
    "a sum of an early stage": (
        "stage_0.py",
        without(r"ffn_out = all_reduce"),
        ("stage_0.py:148", "rank 0", "`ffn_out`"),
    ),
    "a sum of the last stage": (
        "stage_1.py",
        without(r"dh = all_reduce\(dh"),
        ("stage_1.py:156", "`dh = tape.back(attn"),
    ),
    "a layer": ("stage_0.py", swapped('("layers.0", "layers.1")', '("layers.0",)'), ("UNITS",)),
    "initial values": ("stage_0.py", swapped("normal 0.02", "normal 0.03"), ("stage_0.py:27", "normal 0.02")),
    "a stated slice": ("rank_003.py", swapped("[128:256, :]", "[0:128, :]"), ("rank_003.py:", "[0:128, :]")),
    "a setting of the plan": (
        "plan.json",
        swapped('"lr": 0.003', '"lr": 0.1'),
        ("train.lr is 0.1, and 0.003 is right",),
    ),
    "a size": ("sizes.py", swapped("SEQ = 64", "SEQ = 32"), ("sizes.py:", "SEQ = 64")),
    "syntax": ("stage_1.py", lambda text: text + "foo(\n", ("stage_1.py:", "is no Python")),
    "an epsilon": ("stage_0.py", swapped("1e-05", "1e-03"), ("stage_0.py", "1e-03")),
    "a region that talks as often as data says": (
        "stage_1.py",
        swapped(
            "    return x + ffn_out",
            '    for _ in range((x.abs().sum() * 1000).long() % 2 * (SEQ - 7)):\n        x = all_reduce(x, "ep")\n'
            "    return x + ffn_out",
        ),
        ("`add` is a region, and",),
    ),
    "a layer that talks as often as data says": (
        "stage_1.py",
        swapped(
            "    attn_out = all_reduce(attn_out",
            '    for _ in range((x.abs().sum() * 1000).long() % 2 * (SEQ - 7)):\n        x = all_reduce(x, "ep")\n'
            "    attn_out = all_reduce(attn_out",
        ),
        ("loops as often as data says",),
    ),
    "a condition on a size": (
        "stage_1.py",
        swapped("    return x + ffn_out", "    x = x * 2 if SEQ == 64 else x\n    return x + ffn_out"),
        ("a condition",),
    ),
    "a layer, behind a word that is no program's": (
        "stage_1.py",
        lambda text: text.replace("    return x + ffn_out", "    x.tolist()\n    return x + ffn_out", 1).replace(
            '("layers.2", "layers.3")', '("layers.3", "layers.3")', 1
        ),
        ("UNITS",),
    ),
    "one rank that sums twice at this size": (
        "rank_005.py",
        swapped("    run.update()", "    if stage.SEQ == 64:\n        stage.reduce_gradients(run)\n    run.update()"),
        ("a condition",),
    ),
    "a router that learns nothing": (
        "stage_1.py",
        swapped("return x, prob, slot", "return x, prob.detach(), slot"),
        ("detach",),
    ),
}


@pytest.mark.parametrize("file, edit, said", OTHER.values(), ids=OTHER)
def test_another_computation(
    compiled: tuple[Plan, Program], file: str, edit: Edit, said: tuple[str, ...], tmp_path: Path
) -> None:
    verdict = edited(compiled, tmp_path, file, edit)
    assert not verdict.equal
    told = "\n".join(verdict.faults)
    assert all(word in told for word in said), told


def test_nothing_is_claimed_of_what_did_not_run(compiled: tuple[Plan, Program], tmp_path: Path) -> None:
    verdict = edited(compiled, tmp_path, "stage_1.py", lambda text: text + "foo(\n")
    assert statement(verdict) == ("nothing was run, since what is in the folder cannot be",)
    assert set(verdict.errors.values()) == {float("inf")}


@pytest.mark.parametrize("pattern", ['"layers.*.upp" [experts, ffn, _]', '"layers.*.ffn.up" [ffn, _]'])
def test_a_pattern_that_fits_no_weight(pattern: str, tmp_path: Path) -> None:
    path = tmp_path / "pattern.plan"
    path.write_text(TINY.read_text(encoding="utf-8").replace("shard {", f"shard {{\n  {pattern}", 1), encoding="utf-8")
    with pytest.raises(PlanError) as fault:
        compile_plan(read_plan(path))
    assert [each.code for each in fault.value.diagnostics] == ["E414"]


def test_main_is_not_judged_and_that_is_said(compiled: tuple[Plan, Program], tmp_path: Path) -> None:
    verdict = edited(compiled, tmp_path, "main.py", lambda text: text + "print(1)\n")
    assert verdict.equal
    assert "main.py is not what moec writes, and was not judged: no certificate covers it" in statement(verdict)
