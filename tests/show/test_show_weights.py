"""The table of weights."""

import pytest

from moec.compiler.program import Program
from moec.compiler.show_weights import axes_text, numbers_text, show_weights


def _row(program: Program, weight: str) -> list[str]:
    lines = [line for line in show_weights(program).splitlines() if line.startswith(f"{weight} ")]
    assert len(lines) == 1, f"one line for {weight}"
    return [cell.strip() for cell in lines[0].split("  ") if cell.strip()]


def test_equal_layers_share_a_line(tiny: Program) -> None:
    wq = _row(tiny, "layers.{0..3}.attn.wq.weight")
    assert wq[1:] == ["[64, 64]", "[32, 64]", "heads over tp", "ep", "0..1"]


def test_a_weight_of_two_split_dims(tiny: Program) -> None:
    up = _row(tiny, "layers.{0..3}.ffn.up")
    assert up[1:] == ["[4, 128, 64]", "[2, 64, 64]", "experts over ep; expert_ffn over tp", "nothing", "0..1"]


def test_a_weight_of_one_stage(tiny: Program) -> None:
    assert _row(tiny, "embed.weight")[-1] == "0"
    assert _row(tiny, "norm.weight")[1:] == ["[64]", "[64]", "whole", "ep", "1"]


def test_every_element_is_counted(tiny: Program) -> None:
    text = show_weights(tiny)
    assert f"{tiny.parameters:,} parameters" in text
    assert "a rank of stage 0 holds 58,112" in text


def test_the_axes_of_a_fold_have_their_names(folded: Program) -> None:
    up, norm = _row(folded, "layers.{0..1}.ffn.up"), _row(folded, "norm.weight")
    assert up[3:5] == ["experts over ep", "dp.0"]
    assert norm[3:5] == ["whole", "dp, tp"]


def test_atoms_that_no_axis_spans(folded: Program) -> None:
    mesh = folded.plan.mesh
    assert axes_text(mesh, ("dp.1", "tp")) == "ep"
    assert axes_text(mesh, ("dp.0", "dp.1")) == "dp"
    assert axes_text(mesh, ("dp.0", "tp")) == "dp.0, tp"
    assert axes_text(mesh, ()) == ""


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], ""),
        ([7], "7"),
        ([0, 1], "{0..1}"),
        ([0, 1, 2, 3], "{0..3}"),
        ([1, 3, 5, 7], "{1,3..7}"),
        ([0, 2], "{0,2}"),
        ([0, 1, 3], "{0,1,3}"),
    ],
)
def test_ranges(numbers: list[int], text: str) -> None:
    assert numbers_text(numbers) == text
