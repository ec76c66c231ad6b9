"""The mesh: named axes of ranks, the folds over them, and the atoms that all of them are made of.

The last axis varies fastest. A folded axis `ep = 8 over dp, tp` multiplies no ranks: it is the fastest-varying 8 ranks
of the block that dp and tp span. With dp = 4 and tp = 4 that is all of tp and the fast half of dp, so dp is cut in two
*atoms*, `dp.0` (2, slow) and `dp.1` (2, fast), and ep spans `dp.1, tp`. An axis that no fold cuts is an atom itself.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from moec.dsl.tilings import fold_sizes, say_tilings_apart, take_fastest


class MeshFault(Exception):
    """An axis that cannot be laid over the mesh: which one, why, which tilings differ, and the sizes that would do."""

    def __init__(self, axis: str, reason: str, why: str = "", sizes: tuple[int, ...] = ()):
        super().__init__(f"axis `{axis}` {reason}")
        self.axis = axis
        self.reason = reason
        self.why = why
        self.sizes = sizes


@dataclass(frozen=True, slots=True)
class Axis:
    """`name = size`, or a fold, `name = size over x, y`."""

    name: str
    size: int
    over: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Atom:
    """A factor of the mesh that no axis cuts."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Mesh:
    """The axes of a plan; raises MeshFault where the folds do not nest."""

    axes: tuple[Axis, ...]
    atoms: tuple[Atom, ...] = field(init=False, compare=False)
    """The common refinement of all axes, slowest first."""
    _strides: dict[str, int] = field(init=False, compare=False, repr=False)
    _spans: dict[str, tuple[str, ...]] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        atoms = _refine(self.axes)
        object.__setattr__(self, "atoms", atoms)
        object.__setattr__(self, "_strides", _strides(atoms))
        object.__setattr__(self, "_spans", {axis.name: _span(axis, self.axes, atoms) for axis in self.axes})

    @property
    def world_size(self) -> int:
        return math.prod(atom.size for atom in self.atoms)

    def axis(self, name: str) -> Axis:
        return next(axis for axis in self.axes if axis.name == name)

    def size(self, atoms: Iterable[str]) -> int:
        """How many ranks a group over these atoms has."""
        sizes = {atom.name: atom.size for atom in self.atoms}
        return math.prod(sizes[name] for name in atoms)

    def atoms_of(self, axis_name: str) -> tuple[str, ...]:
        """The atoms that an axis spans, slowest first; none for a fold of size 1."""
        return self._spans[axis_name]

    def coordinates(self, rank: int) -> dict[str, int]:
        """Where a rank stands: atom -> coordinate."""
        return {atom.name: rank // self._strides[atom.name] % atom.size for atom in self.atoms}

    def group(self, rank: int, atoms: tuple[str, ...]) -> tuple[int, ...]:
        """The ranks that differ from `rank` in these atoms only, ordered by these atoms, the first the major."""
        sizes = {atom.name: atom.size for atom in self.atoms}
        ranks = [self.first(rank, atoms)]
        for name in atoms:
            stride = self._strides[name]
            ranks = [first + step * stride for first in ranks for step in range(sizes[name])]
        return tuple(ranks)

    def first(self, rank: int, atoms: tuple[str, ...]) -> int:
        """The first rank of that group."""
        at = self.coordinates(rank)
        return rank - sum(at[name] * self._strides[name] for name in atoms)

    def index(self, rank: int, atoms: tuple[str, ...]) -> int:
        """The position of `rank` in its group over these atoms."""
        at, position = self.coordinates(rank), 0
        for name in atoms:
            position = position * self.size((name,)) + at[name]
        return position

    def name(self, atoms: tuple[str, ...]) -> str:
        """An identifier for groups over these atoms and no others: `tp`, `dp_ep`, or `dp1_tp` where an axis is cut.

        Names with underscores can collide (`dp_ep` may be an axis, or dp and ep): the later reading gets underscores
        behind it.
        """
        spelling = self._spell(atoms)
        rivals = {reading for reading in self._readings(spelling) if self._spell(reading) == spelling} | {atoms}
        return spelling + "_" * sorted(rivals, key=lambda reading: (not self._exact(reading), reading)).index(atoms)

    def _exact(self, atoms: tuple[str, ...]) -> str | None:
        """The axis that spans exactly these atoms, one that is no fold before one that is."""
        exact = [axis for axis in self.axes if self._spans[axis.name] == atoms]
        return min(exact, key=lambda axis: bool(axis.over)).name if exact else None

    def _spell(self, atoms: tuple[str, ...]) -> str:
        parts: list[str] = []
        rest = atoms
        while rest:
            heads = [(length, self._exact(rest[:length])) for length in range(len(rest), 0, -1)]
            length, part = next(((length, axis) for length, axis in heads if axis), (1, rest[0].replace(".", "")))
            parts.append(part)
            rest = rest[length:]
        return "_".join(parts) or "self"

    def _readings(self, spelling: str) -> Iterator[tuple[str, ...]]:
        """Every tuple of atoms that a spelling can be read as."""
        if not spelling:
            yield ()
        words = {atom.name.replace(".", ""): (atom.name,) for atom in self.atoms}
        words |= self._spans
        for word, atoms in words.items():
            if atoms and (spelling == word or spelling.startswith(word + "_")):
                yield from (atoms + rest for rest in self._readings(spelling[len(word) + 1 :]))


def _refine(axes: tuple[Axis, ...]) -> tuple[Atom, ...]:
    atoms: list[Atom] = []
    for base in axes:
        if not base.over:
            marks = [1, *_cuts(base, axes), base.size]
            parts = [fast // slow for slow, fast in pairwise(marks)][::-1]
            whole = len(parts) == 1
            atoms += [Atom(base.name if whole else f"{base.name}.{n}", size) for n, size in enumerate(parts)]
    return tuple(atoms)


def _cuts(base: Axis, axes: tuple[Axis, ...]) -> list[int]:
    """Where folds cut an axis, as numbers of its fastest ranks, ascending; each must divide the next."""
    cuts: list[int] = []
    for fold in axes:
        cut = _taken(fold, axes).get(base.name, 1) if fold.over else 1
        if cut in (1, base.size, *cuts):
            continue
        rival = next((other for other in cuts if other % cut and cut % other), None)
        if rival:
            other = next(axis.name for axis in axes if axis.over and _taken(axis, axes).get(base.name) == rival)
            raise MeshFault(
                fold.name,
                f"takes {cut} ranks of `{base.name}`, and `{other}` takes {rival}: they do not nest",
                f"`{base.name}` is tiled twice: by `{other}` in blocks of {rival}, and by `{fold.name}` in blocks of "
                f"{cut}; {max(cut, rival)} % {min(cut, rival)} = {max(cut, rival) % min(cut, rival)}",
            )
        cuts.append(cut)
    return sorted(cuts)


def _taken(fold: Axis, axes: tuple[Axis, ...]) -> dict[str, int]:
    """How many of the fastest ranks of each axis a fold takes."""
    unknown = [name for name in fold.over if not any(axis.name == name and not axis.over for axis in axes)]
    if unknown:
        raise MeshFault(fold.name, f"folds over `{unknown[0]}`, which is no axis with ranks of its own")
    block = [axis for axis in axes if axis.name in fold.over]  # in the order of the mesh, whatever the order of `over`
    sizes = tuple(axis.size for axis in block)
    taken = take_fastest(fold.size, sizes)
    if taken is None:
        raise MeshFault(
            fold.name,
            f"takes {fold.size} ranks of a block of {' * '.join(map(str, sizes))}: they do not nest",
            say_tilings_apart(fold.name, fold.size, {axis.name: axis.size for axis in block}),
            fold_sizes(sizes),
        )
    return {axis.name: count for axis, count in zip(block, taken, strict=True)}


def _strides(atoms: tuple[Atom, ...]) -> dict[str, int]:
    strides: dict[str, int] = {}
    stride = 1
    for atom in reversed(atoms):
        strides[atom.name] = stride
        stride *= atom.size
    return strides


def _span(axis: Axis, axes: tuple[Axis, ...], atoms: tuple[Atom, ...]) -> tuple[str, ...]:
    """The atoms of an axis, slowest first: all of its own, or those of a fold's block that lie within what it takes."""
    taken = _taken(axis, axes) if axis.over else {axis.name: axis.size}
    span: list[str] = []
    reach = dict.fromkeys(taken, 1)
    for atom in reversed(atoms):
        base = _base_of(atom)
        if base in taken and (reach[base] < taken[base] or base == axis.name):
            reach[base] *= atom.size
            span.insert(0, atom.name)
    return tuple(span)


def _base_of(atom: Atom) -> str:
    return atom.name.partition(".")[0]
