"""Where a rank stands: its coordinates on the mesh's axes, its groups, and which slice of a dim is its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

Axes = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """One rank of the mesh. Axes are in the mesh's order, the last varies fastest."""

    rank: int
    axes: Mapping[str, int]  # sizes
    coordinates: Mapping[str, int]
    groups: Mapping[str, tuple[int, ...]]
    previous: int | None  # the ranks that hold the stages before and after, in the same lane
    next: int | None

    def count(self, axes: Axes) -> int:
        """Slices that these axes cut a dim into."""
        count = 1
        for axis in axes:
            count *= self.axes[axis]
        return count

    def index(self, axes: Axes) -> int:
        """Which of these slices is this rank's; the first axis is the major one."""
        index = 0
        for axis in axes:
            index = index * self.axes[axis] + self.coordinates[axis]
        return index

    def part(self, size: int, axes: Axes) -> slice:
        """This rank's slice of a dim of `size` that goes over these axes."""
        n, rest = divmod(size, self.count(axes))
        assert rest == 0, f"a dim of {size} cannot be cut into {self.count(axes)} equal slices"
        start = self.index(axes) * n
        return slice(start, start + n)

    @property
    def pipeline(self) -> str | None:
        """The axis that the stages lie along: the one in which the neighbours differ from this rank."""
        stride = 1
        for axis in reversed(tuple(self.axes)):
            if self.axes[axis] > 1 and (self.next == self.rank + stride or self.previous == self.rank - stride):
                return axis
            stride *= self.axes[axis]
        return None

    @property
    def stage(self) -> int:
        return self.coordinates[self.pipeline] if self.pipeline else 0

    @property
    def alike(self) -> tuple[int, ...]:
        """The ranks that run the same stage, this one among them."""
        world, stride = 1, 1
        for axis in reversed(tuple(self.axes)):
            stride = world if axis == self.pipeline else stride
            world *= self.axes[axis]
        count = self.axes[self.pipeline] if self.pipeline else 1
        return tuple([rank for rank in range(world) if rank // stride % count == self.stage])


def place_of(rank_module: ModuleType) -> Place:
    """The place that a rank's file states."""
    return Place(
        rank_module.RANK,
        rank_module.AXES,
        rank_module.COORDINATES,
        {name: tuple(ranks) for name, ranks in rank_module.GROUPS.items()},
        rank_module.PREVIOUS,
        rank_module.NEXT,
    )
