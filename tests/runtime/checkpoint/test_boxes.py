"""Boxes against an array in which they are painted."""

from itertools import pairwise, product

import numpy
from hypothesis import given
from hypothesis import strategies as st

from moec.checkpoint.boxes import common, untiled, volume


@st.composite
def tilings(draw):
    """A shape, and the boxes of a grid on it, of which some may be lost, doubled or moved."""
    shape = draw(st.lists(st.integers(1, 5), max_size=3))
    spans = []
    for size in shape:
        cuts = sorted({0, size, *draw(st.lists(st.integers(0, size), max_size=2))})
        spans.append(list(pairwise(cuts)))
    boxes = [tuple(box) for box in product(*spans)]
    for _ in range(draw(st.integers(0, 2))):
        i = draw(st.integers(0, len(boxes) - 1)) if boxes else 0
        match draw(st.sampled_from(["drop", "double", "move", "leave"])):
            case "drop" if boxes:
                del boxes[i]
            case "double" if boxes:
                boxes.append(boxes[i])
            case "move" if boxes and shape:
                dim = draw(st.integers(0, len(shape) - 1))
                start = draw(st.integers(-1, shape[dim]))
                moved = (start, start + draw(st.integers(0, 3)))
                boxes[i] = (*boxes[i][:dim], moved, *boxes[i][dim + 1 :])
    return tuple(shape), boxes


@given(tilings())
def test_a_tiling_covers_every_element_once(drawn):
    shape, boxes = drawn
    inside = all(0 <= a < b <= n for box in boxes for (a, b), n in zip(box, shape, strict=True))
    painted = numpy.zeros(shape, int)
    for box in boxes if inside else []:
        painted[tuple(slice(*span) for span in box)] += 1
    assert (untiled(shape, boxes) == "") == (inside and bool((painted == 1).all()))


@given(st.data())
def test_common(data):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    boxes = [tuple(sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in shape) for _ in range(2)]
    boxes = [tuple((a, b) for a, b in box) for box in boxes]
    painted = numpy.zeros(shape, int)
    for box in boxes:
        painted[tuple(slice(*span) for span in box)] += 1
    both = common(*boxes)
    assert int((painted == 2).sum()) == (volume(both) if both else 0)
