"""The program as text, whole and after each pass."""

import pytest

from moec.compiler.pipeline import PASSES
from moec.compiler.program import Collective, Compute, Program
from moec.compiler.show import show_after, show_program
from moec.dsl import Plan, PlanError, render


def test_everything_of_the_program_is_in_it(tiny: Program) -> None:
    lines = show_program(tiny).splitlines()
    assert lines[0] == "program tiny_moe  mesh pp 2  ep 2  tp 2  8 ranks"
    for unit in tiny.units.values():
        for item in unit.forward:
            wanted = f"region {item.name}(" if isinstance(item, Compute) else f"{item.output} = {item.move.kind}("
            assert any(line.strip().startswith(wanted) for line in lines), wanted
            for op in item.ops if isinstance(item, Compute) else ():
                assert any(line.strip().startswith(f"{', '.join(op.outputs)} = {op.target}(") for line in lines)
        talks = [item for item in unit.forward if isinstance(item, Collective) and not item.move.silent]
        assert sum(f" = {item.move.kind}({item.source}) over" in line for item in talks for line in lines) >= len(talks)


def test_types_change_at_collectives(tiny: Program) -> None:
    text = show_program(tiny)
    assert "linear_3__2 = all_reduce(linear_3) over tp : P -> I\n" in text
    assert "rms_norm__1 = share(rms_norm) over tp : I -> R, silent\n" in text
    assert "d_rms_norm = all_reduce(d_rms_norm__1) over tp : share of rms_norm, transposed\n" in text


def test_the_schedule_of_a_stage(tiny: Program) -> None:
    text = show_program(tiny)
    assert "stage 1 of 2\n  receives layer_1_0\n  2 turns, layers.2 to layers.3, each from" in text
    assert "  schedule, 4 micro-batches\n    receive 0, forward 0, backward 0, back 0, forward 1," in text


def test_ragged_rows(folded: Program) -> None:
    text = show_program(folded)
    assert "DTYPE[rows, hidden] ep S(experts)  dp0 S(batch)" in text
    assert "arrivals__4 = exchange_counts(counts__3) over ep\n" in text


def test_the_same_text_twice(tiny: Program) -> None:
    assert show_program(tiny) == show_program(tiny)


@pytest.mark.parametrize(
    ("name", "there", "absent"),
    [
        ("split_model", ("graph layer(", "chain\n"), ("unit ", "stage ", "schedule")),
        ("type_units", ("unit layer(", "chain\n"), ("graph ", "stage 0", "schedule")),
        ("join_reductions", ("unit layer(", "together: "), ("graph ", "stage 0", "schedule")),
        ("partition_stages", ("unit layer(", "stage 1 of 2\n"), ("graph ", "chain\n", "schedule")),
        ("schedule_microbatches", ("stage 1 of 2\n", "  schedule, 4 micro-batches\n"), ("graph ", "chain\n")),
    ],
)
def test_after_a_pass(tiny_plan: Plan, name: str, there: tuple[str, ...], absent: tuple[str, ...]) -> None:
    text = show_after(tiny_plan, name)
    assert [words for words in there if words not in text] == []
    assert [words for words in absent if words in text] == []


def test_the_last_pass_is_the_program(tiny_plan: Plan, tiny: Program) -> None:
    assert show_after(tiny_plan, PASSES[-1].__name__) == show_program(tiny)


def test_no_such_pass(tiny_plan: Plan) -> None:
    with pytest.raises(PlanError) as fault:
        show_after(tiny_plan, "cut_corners")
    passes = (
        "`split_model`, `type_units`, `join_linears`, `join_reductions`, `partition_stages` and `schedule_microbatches`"
    )
    said = f"error[E115]: `cut_corners` is not a pass of the compiler\n = help: in order, they are {passes}\n"
    assert render(fault.value.diagnostics, color=False) == said
