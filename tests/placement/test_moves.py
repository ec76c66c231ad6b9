"""Every coercion between two types on small meshes: the right value forward, the right gradient backward.

The moves run with the runtime's own collectives on simulated ranks, and are compared with what the types mean: of a
whole tensor each rank has all (I, R), a slice (S) or a summand (P). The gradient of I is the same on all ranks, of R a
summand, of S its slice, of P the same.
"""

from collections.abc import Callable, Iterator
from itertools import product

import pytest
import torch
from torch import Tensor

from moec.compiler.placement import Axes, Kind, Move, Placement, moves_between
from moec.dsl.mesh import Axis, Mesh
from moec.runtime import collectives
from moec.runtime.simulated import simulate

MESHES = (Mesh((Axis("x", 3),)), Mesh((Axis("x", 2), Axis("y", 3))), Mesh((Axis("y", 3), Axis("x", 2))))
SHAPE = (6, 12)


def placements(mesh: Mesh) -> Iterator[Placement]:
    """Every type of a matrix on a mesh, with both orders of two axes on one dim."""
    names = tuple(atom.name for atom in mesh.atoms)
    for letters in product(("I", "R", "P", 0, 1), repeat=len(names)):
        of = dict(zip(names, letters, strict=True))
        for order in dict.fromkeys((names, names[::-1])) if len(set(letters)) == 1 else (names,):
            split = tuple(tuple(name for name in order if of[name] == dim) for dim in range(len(SHAPE)))
            partial, replicated = (tuple(name for name in names if of[name] == letter) for letter in "PR")
            yield Placement(split, partial, replicated)


def pairs(mesh: Mesh) -> list[tuple[Placement, Placement]]:
    types = list(dict.fromkeys(placements(mesh)))
    return list(product(types, types))


def dual(placement: Placement) -> Placement:
    """The type of the gradient."""
    return Placement(placement.split, placement.replicated, placement.partial)


@pytest.mark.parametrize("mesh", MESHES, ids=lambda mesh: "-".join(f"{atom.name}{atom.size}" for atom in mesh.atoms))
def test_values_and_gradients(mesh: Mesh) -> None:
    """All pairs of types in one run of the ranks: a run for each would take minutes."""
    cases = [(source, target, _random(n)) for n, (source, target) in enumerate(pairs(mesh))]

    def program(rank: int) -> list[str]:
        wrong = []
        for source, target, whole in cases:
            moves = moves_between(source, target)
            there = part_of(mesh, rank, source, whole)
            for move in moves:
                there = collective(move.kind, move, backward=False)(there)
            home = part_of(mesh, rank, dual(target), whole)
            for move in reversed(moves):
                home = collective(move.backward, move, backward=True)(home)
            right = torch.equal(whole_of(target, there), whole), torch.equal(whole_of(dual(source), home), whole)
            if not all(right):
                wrong.append(f"{source} to {target} by {[move.kind for move in moves]}: {right}")
        return wrong

    wrong = simulate(mesh.world_size, program, lambda rank: groups(mesh, rank))
    assert not wrong[0]


@pytest.mark.parametrize("mesh", MESHES, ids=lambda mesh: "-".join(f"{atom.name}{atom.size}" for atom in mesh.atoms))
def test_no_more_talk_than_needed(mesh: Mesh) -> None:
    """On one axis at most one collective talks; of what is there already, none."""
    for source, target in pairs(mesh):
        moves = moves_between(source, target)
        assert len(mesh.atoms) > 1 or sum(not move.silent for move in moves) <= 1
        assert source != target or not moves
        assert not moves or moves[-1].after == target


def test_every_row_of_the_table_is_met() -> None:
    """Section 2 of the design: all twelve changes of a letter, and from one dim to another."""
    (one, *_) = MESHES
    letters = {(source.letter("x"), target.letter("x")) for source, target in pairs(one) if source != target}
    assert letters == {(a, b) for a, b in product("IRSP", repeat=2) if a != b} | {("S", "S")}


def groups(mesh: Mesh, rank: int) -> dict[str, tuple[int, ...]]:
    names = tuple(atom.name for atom in mesh.atoms)
    return {name_of(axes): mesh.group(rank, axes) for axes in {(), names, names[::-1], *((name,) for name in names)}}


def part_of(mesh: Mesh, rank: int, placement: Placement, whole: Tensor) -> Tensor:
    """What a rank has of a tensor: of a sum, the n-th of unlike whole numbers that add up."""
    part = whole
    for dim, axes in enumerate(placement.split):
        part = part.tensor_split(mesh.size(axes), dim)[mesh.index(rank, axes)]
    last, n = mesh.size(placement.partial) - 1, mesh.index(rank, placement.partial)
    return part - sum(range(last)) if n == last else torch.full_like(part, float(n))


def whole_of(placement: Placement, part: Tensor) -> Tensor:
    """The tensor of which every rank has a part."""
    whole = collectives.all_reduce(part, name_of(placement.partial)) if placement.partial else part
    for dim, axes in enumerate(placement.split):
        whole = collectives.all_gather(whole, name_of(axes), dim=dim) if axes else whole
    return whole


def collective(kind: Kind | None, move: Move, backward: bool) -> Callable[[Tensor], Tensor]:
    """A collective of the runtime with the arguments that emitted text gives it."""
    axes, dim = name_of(move.axes), move.dim
    split, join = (move.join, move.dim) if backward else (move.dim, move.join)
    match kind:
        case "all_reduce":
            return lambda x: collectives.all_reduce(x, axes)
        case "all_gather":
            return lambda x: collectives.all_gather(x, axes, dim=dim)
        case "reduce_scatter":
            return lambda x: collectives.reduce_scatter(x, axes, dim=dim)
        case "all_to_all":
            return lambda x: collectives.all_to_all(x, axes, split=split, join=join)
        case "take":
            return lambda x: collectives.take(x, axes, dim=dim)
        case "spread":
            return lambda x: collectives.spread(x, axes, dim=dim)
        case "first":
            return lambda x: collectives.first(x, axes)
        case "share" | "keep" | None:
            return lambda x: x
        case _:
            raise AssertionError(f"{kind} is no coercion of a static type")


def name_of(axes: Axes) -> str:
    return "_".join(axes) or "self"


def _random(seed: int) -> Tensor:
    """Whole numbers, so that sums are exact in every order."""
    return torch.randint(-9, 10, SHAPE, generator=torch.Generator().manual_seed(seed)).double()
