"""What does not match, and who waits for whom, word for word."""

import pytest
import torch

from moec.runtime import (
    Slot,
    all_gather,
    all_reduce,
    all_reduce_max,
    all_reduce_start,
    exchange_counts,
    send_rows,
    wait,
)
from moec.runtime.communicator import current
from moec.runtime.simulated import Deadlock, Mismatch, simulate

X = torch.ones(2)
SLOT = (Slot("x", (2,), torch.float32, False),)


def fails(fault, program, world=2):
    with pytest.raises(fault) as caught:
        simulate(world, program, lambda rank: {})
    return caught.value


def line(program, offset):
    return f"test_simulated.py:{program.__code__.co_firstlineno + offset}"


def test_sum_against_max():
    def program(rank):
        reduce = all_reduce if rank != 2 else all_reduce_max
        reduce(X, "world")

    fault = fails(Mismatch, program, 4)
    assert fault.ranks == (0, 1, 2)
    assert str(fault) == (
        "collective 1 of ranks 0, 1, 2, 3 differs in the operation\n"
        f"  ranks 0, 1 call all_reduce(sum) of float32[2] over world at {line(program, 2)}\n"
        f"  rank 2 calls all_reduce(max) of float32[2] over world at {line(program, 2)}"
    )


def test_two_of_the_same_shape_swapped():
    def program(rank):
        if rank == 0:
            all_reduce(X, "world", "a")
            all_reduce(X, "world", "b")
        else:
            all_reduce(X, "world", "b")
            all_reduce(X, "world", "a")

    assert str(fails(Mismatch, program)) == (
        "collective 1 of ranks 0, 1 differs in the value: they are calls of different lines\n"
        f"  rank 0 calls all_reduce(sum) of `a` float32[2] over world at {line(program, 2)}\n"
        f"  rank 1 calls all_reduce(sum) of `b` float32[2] over world at {line(program, 5)}"
    )


def test_in_files_of_different_stages_the_name_decides():
    def load(file, name):
        names = {"all_reduce": all_reduce, "X": X}
        exec(compile(f"def call():\n    all_reduce(X, 'world', '{name}')", file, "exec"), names)
        return names["call"]

    same = (load("/job/stage_0.py", "tied"), load("/job/stage_1.py", "tied"))
    simulate(2, lambda rank: same[rank](), lambda rank: {})
    unlike = (load("/job/stage_0.py", "norm"), load("/job/stage_1.py", "tied"))
    assert "`norm` float32[2] over world at stage_0.py:2" in str(fails(Mismatch, lambda rank: unlike[rank]()))


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (lambda: all_gather(X, "world", 0), "the kind"),
        (lambda: all_reduce(torch.ones(2, dtype=torch.float64), "world"), "the dtype"),
        (lambda: all_reduce(torch.ones(3), "world"), "the shape"),
    ],
)
def test_kind_dtype_and_shape(other, difference):
    fault = fails(Mismatch, lambda rank: other() if rank else all_reduce(X, "world"))
    assert f"differs in {difference}\n" in str(fault)


def test_a_rank_that_leaves_out_a_call_is_found_at_the_next():
    def program(rank):
        if rank != 1:
            all_reduce(X, "world", "left out")
        all_reduce(X, "world", "next")

    fault = fails(Mismatch, program, 3)
    assert "rank 0 calls all_reduce(sum) of `left out`" in str(fault) and "rank 1 calls" in str(fault)


def test_a_rank_that_has_ended():
    def program(rank):
        all_reduce(X, "world", "both")
        if rank == 0:
            all_reduce(X, "world", "one")

    fault = fails(Deadlock, program)
    assert fault.ranks == (0, 1)
    assert str(fault) == (
        "ranks wait for one that has ended\n"
        f"  rank 0 waits for rank 1 in all_reduce(sum) of `one` float32[2] over world at {line(program, 3)}\n"
        f"  rank 1 has ended after its all_reduce(sum) of `both` float32[2] over world at {line(program, 1)}"
    )


def test_crossed_sends():
    def program(rank):
        if rank < 2:
            current().send((X,), 1 - rank)
            current().receive(SLOT, 1 - rank)
        else:
            all_reduce(X, "world")

    fault = fails(Deadlock, program, 4)
    assert fault.ranks == (0, 1)
    assert str(fault) == (
        "ranks wait for each other\n"
        f"  rank 0 waits for rank 1 in send of float32[2] to rank 1 at {line(program, 2)}\n"
        f"  rank 1 waits for rank 0 in send of float32[2] to rank 0 at {line(program, 2)}\n"
        "  2 more ranks wait"
    )


def test_crossed_sends_as_an_exchange():
    def program(rank):
        (x,) = current().exchange((torch.full((2,), float(rank)),), SLOT, 1 - rank)
        return x.tolist()

    assert simulate(2, program, lambda rank: {}) == [[1.0, 1.0], [0.0, 0.0]]


def test_an_exchange_meets_a_receive_and_then_a_send():
    def program(rank):
        if rank == 0:
            return current().exchange((X,), SLOT, 1)[0].tolist()
        (x,) = current().receive(SLOT, 0)
        current().send((x + 1,), 0)
        return None

    assert simulate(2, program, lambda rank: {})[0] == [2.0, 2.0]


def test_a_circle_across_groups():
    def program(rank):
        for axes in (("a", "b"), ("b", "c"), ("c", "a"))[rank]:
            all_reduce(X, axes)

    groups = ({"a": (0, 2), "b": (0, 1)}, {"b": (0, 1), "c": (1, 2)}, {"a": (0, 2), "c": (1, 2)})
    with pytest.raises(Deadlock) as caught:
        simulate(3, program, lambda rank: groups[rank])
    assert caught.value.ranks == (0, 2, 1)
    assert str(caught.value) == (
        "ranks wait for each other\n"
        f"  rank 0 waits for rank 2 in all_reduce(sum) of float32[2] over a at {line(program, 2)}\n"
        f"  rank 2 waits for rank 1 in all_reduce(sum) of float32[2] over c at {line(program, 2)}\n"
        f"  rank 1 waits for rank 0 in all_reduce(sum) of float32[2] over b at {line(program, 2)}"
    )


def test_a_send_that_is_not_what_is_received():
    def program(rank):
        if rank == 0:
            current().send((torch.ones(3),), 1)
        else:
            current().receive(SLOT, 0)

    assert str(fails(Mismatch, program)) == (
        "what is sent is not what is received\n"
        f"  rank 0: send of float32[3] to rank 1 at {line(program, 2)}\n"
        f"  rank 1: receive of `x` float32[2] from rank 0 at {line(program, 4)}"
    )


def test_rows_that_are_not_expected():
    def program(rank):
        counts = torch.tensor([1, 1])
        arrivals = exchange_counts(counts, "world")
        send_rows(torch.ones(2, 3), counts, arrivals + rank, "world")

    assert "rank 0 sends 1 rows to rank 1, which expects 2" in str(fails(Mismatch, program))


def test_started_and_never_joined():
    fault = fails(Mismatch, lambda rank: all_reduce_start(X, "world", "a") if rank == 0 else None)
    assert str(fault).endswith("and rank 1 never does") and "`a`" in str(fault)


def test_an_operand_written_while_in_flight():
    def program(rank):
        x = torch.ones(2)
        pending = all_reduce_start(x, "world")
        if rank == 0:
            x += 1
        wait(pending)

    assert "rank 0 wrote its operand while it was in flight: all_reduce" in str(fails(Mismatch, program))


def test_what_is_started_goes_on_while_ranks_do_other_things():
    def program(rank):
        a, b = all_reduce_start(X + rank, "world", "a"), all_reduce_start(X * 10, "world", "b")
        return wait(b)[0].item(), wait(a)[0].item()

    assert simulate(3, program, lambda rank: {}) == [(30.0, 6.0)] * 3


def test_an_exception_names_its_rank_and_its_last_call():
    def program(rank):
        all_reduce(X, "world", "a")
        if rank == 1:
            raise KeyError("boom")
        all_reduce(X, "world", "b")

    fault = fails(KeyError, program, 3)
    where = line(program, 1)
    assert fault.__notes__ == [f"on rank 1, after its all_reduce(sum) of `a` float32[2] over world at {where}"]


def test_a_context_manager_open_across_a_call_is_refused():
    def program(rank):
        with torch.no_grad():
            all_reduce(X, "world")

    assert "a torch context manager is open across all_reduce" in str(fails(RuntimeError, program))


def test_512_ranks():
    def groups(rank):
        return {"tp": tuple(range(rank // 8 * 8, rank // 8 * 8 + 8))}

    def program(rank):
        x = torch.ones(16, 16)
        for _ in range(40):
            x = all_reduce(x, "tp") / 8
        return x[0, 0].item()

    assert simulate(512, program, groups) == [1.0] * 512
