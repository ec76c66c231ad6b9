"""Axes, folds and the atoms of both."""

import pytest

from moec.dsl import read_plan
from moec.dsl.mesh import Axis, Mesh, MeshFault
from moec.dsl.show_mesh import say_mesh, show_mesh
from moec.dsl.tilings import divisors, fold_sizes, take_fastest

FOLDED = Mesh((Axis("dp", 4), Axis("tp", 4), Axis("ep", 8, ("dp", "tp"))))


def test_atoms_are_the_common_refinement() -> None:
    assert [(atom.name, atom.size) for atom in FOLDED.atoms] == [("dp.0", 2), ("dp.1", 2), ("tp", 4)]
    assert FOLDED.atoms_of("dp") == ("dp.0", "dp.1") and FOLDED.atoms_of("ep") == ("dp.1", "tp")
    assert FOLDED.world_size == 16


def test_the_last_axis_varies_fastest() -> None:
    mesh = Mesh((Axis("pp", 2), Axis("tp", 3)))
    assert [mesh.coordinates(rank) for rank in (0, 1, 3)] == [
        {"pp": 0, "tp": 0},
        {"pp": 0, "tp": 1},
        {"pp": 1, "tp": 0},
    ]


def test_a_fold_takes_neighbours() -> None:
    assert FOLDED.group(0, FOLDED.atoms_of("ep")) == tuple(range(8))
    assert FOLDED.group(9, FOLDED.atoms_of("ep")) == tuple(range(8, 16))
    assert FOLDED.index(9, FOLDED.atoms_of("ep")) == 1


@pytest.mark.parametrize(
    ("count", "sizes", "taken"),
    [
        (8, (4, 4), (2, 4)),
        (2, (4, 4), (1, 2)),
        (16, (4, 4), (4, 4)),
        (8, (6,), None),
        (8, (2, 6), None),
        (1, (4,), (1,)),
    ],
)
def test_take_fastest(count: int, sizes: tuple[int, ...], taken: tuple[int, ...] | None) -> None:
    assert take_fastest(count, sizes) == taken


def test_fold_sizes_nest() -> None:
    assert all(take_fastest(size, (4, 6)) for size in fold_sizes((4, 6)))
    assert divisors(36) == (1, 2, 3, 4, 6, 9, 12, 18, 36)


def test_folds_that_cut_an_axis_apart() -> None:
    with pytest.raises(MeshFault):
        Mesh((Axis("dp", 12), Axis("a", 4, ("dp",)), Axis("b", 6, ("dp",))))


def test_names_of_groups_do_not_collide() -> None:
    mesh = Mesh((Axis("dp", 2), Axis("ep", 2), Axis("dp_ep", 2)))
    assert len({mesh.name(("dp_ep",)), mesh.name(("dp", "ep"))}) == 2
    assert FOLDED.name(("dp.1", "tp")) == "ep" and FOLDED.name(("dp.0",)) == "dp0"


def test_said_in_words(examples) -> None:
    flagship = read_plan(str(examples / "30b_moe.plan"))
    assert say_mesh(flagship.mesh) == "four independent axes, 4·2·16·4 = 512 ranks"
    assert show_mesh(flagship).endswith(
        "in each of 4 pipeline stages, 128 ranks:\n"
        "  dense weights  tensor 4 (tp) · data 32 (dp, ep)\n"
        "  experts        tensor 4 (tp) · experts 16 (ep) · data 2 (dp)\n"
    )
    folded = read_plan(str(examples / "sequence_parallel.plan"))
    said = "two independent axes, 4·2 = 8 ranks; ep = 4 folds over dp, tp: the fast 2 of 4 of dp, all 2 of tp"
    assert say_mesh(folded.mesh) == said
    assert "experts        tensor 1 · experts 4 (dp.1, tp) · data 2 (dp.0)" in show_mesh(folded)
