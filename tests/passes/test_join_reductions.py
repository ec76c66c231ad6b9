"""Which sums of a backward become one message, and where it stands."""

from moec.compiler.join_reductions import joined
from moec.compiler.placement import Move, invariant
from moec.compiler.program import Add, Backward, Collective, Joined, Transposed, Where


def a_sum(source, output, axis="tp"):
    move = Move("share", (axis,), invariant(1), "all_reduce")
    return Transposed(Collective(move, "forward", "shared", "", Where()), source, output)


def a_gather(source, output):
    move = Move("take", ("tp",), invariant(1), "all_gather", 0)
    return Transposed(Collective(move, "forward", "taken", "", Where()), source, output)


def test_waits_for_the_next_sum_over_the_same_axes():
    first, second, region = a_sum("a", "b"), a_sum("c", "d"), Backward("region", ("x",), ("c",))
    reader = Backward("reader", ("b", "d"), ())
    assert joined([first, region, second, reader]) == (region, Joined((first, second)), reader)


def test_stands_before_its_first_reader():
    first, second = a_sum("a", "b"), a_sum("c", "d")
    reader = Backward("reader", ("b",), ("c",))
    assert joined([first, reader, second]) == (first, reader, second)


def test_chain():
    first, second = a_sum("a", "b"), a_sum("b", "c")
    assert joined([first, second]) == (first, second)


def test_other_axes_and_other_moves_stay_apart():
    first, second, third = a_sum("a", "b"), a_sum("c", "d", "ep"), a_gather("e", "f")
    assert joined([first, second, third]) == (third, first, second)


def test_all_that_wait_go_with_the_first_that_is_read():
    first, second, third = a_sum("a", "b"), a_sum("c", "d"), a_sum("e", "f")
    total = Add(("d", "x"), "y")
    assert joined([first, second, total, third]) == (Joined((first, second)), total, third)
