"""Boxes: which elements of a tensor a slice of it has, by the start and stop of every dim."""

from collections.abc import Sequence
from math import prod

Box = tuple[tuple[int, int], ...]


def whole(shape: Sequence[int]) -> Box:
    return tuple([(0, size) for size in shape])


def sizes(box: Box) -> tuple[int, ...]:
    return tuple([stop - start for start, stop in box])


def volume(box: Box) -> int:
    """Elements in the box; one for that of a scalar."""
    return prod(sizes(box))


def common(box: Box, other: Box) -> Box | None:
    """What two boxes of one tensor have in common; None if that is nothing."""
    parts = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(box, other, strict=True)]
    return tuple(parts) if all(start < stop for start, stop in parts) else None


def below(box: Box, outer: Box) -> Box:
    """The box in coordinates that begin where `outer` does."""
    return tuple([(start - first, stop - first) for (start, stop), (first, _) in zip(box, outer, strict=True)])


def text(box: Box) -> str:
    """As it is written behind a name: `[0:32, 64:128]`."""
    return "[" + ", ".join([f"{start}:{stop}" for start, stop in box]) + "]"


def untiled(shape: Sequence[int], boxes: Sequence[Box]) -> str:
    """What keeps boxes from covering every element of a tensor once, or "".

    They must form a grid, as the slices of a mesh do: the product of cuts of each dim, each product once.
    """
    for box in boxes:
        if len(box) != len(shape) or not all(0 <= a < b <= n for (a, b), n in zip(box, shape, strict=True)):
            return f"{text(box)} is no slice of {list(shape)}"
    if len(set(boxes)) < len(boxes):
        twice = next(box for i, box in enumerate(boxes) if box in boxes[:i])
        return f"{text(twice)} is there twice"
    cuts = [sorted({box[dim] for box in boxes}) for dim in range(len(shape))]
    for dim, (size, parts) in enumerate(zip(shape, cuts, strict=True)):
        end = 0
        for start, stop in parts:
            if start != end:
                what = "is missing" if start > end else "is there twice"
                return f"{min(start, end)}:{max(start, end)} of dim {dim} {what}"
            end = stop
        if end != size:
            return f"{end}:{size} of dim {dim} is missing"
    if len(boxes) != prod(len(parts) for parts in cuts):
        return f"{len(boxes)} slices of {prod(len(parts) for parts in cuts)} are there"
    return ""
