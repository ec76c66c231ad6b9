"""Every call of a communicator, for ranks in one process and in many: run by test_distributed.py."""

import os
import sys
from datetime import timedelta

import torch

from moec import runtime as r
from moec.runtime import communicator
from moec.runtime.communicator import current
from moec.runtime.distributed import connect, find_store

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.int64)


def groups(rank):
    named = {"tp": (rank // 2 * 2, rank // 2 * 2 + 1), "dp": (rank % 2, rank % 2 + 2), "turned": (0, 2, 1, 3)}
    return {**named, "alone": (rank,), **({"edge": (0, 3)} if rank in (0, 3) else {})}


def program(rank):
    results = {}
    for dtype in DTYPES:
        x = (torch.arange(48).reshape(4, 4, 3) * (rank + 1) % 17).to(dtype)
        for axes in ("tp", "dp", "turned", "world", "alone"):
            results[f"all_reduce {axes} {dtype}"] = r.all_reduce(x, axes)
            together = r.all_reduce_together((x, x[0]), axes)
            results[f"all_reduce_together {axes} {dtype}"] = torch.cat([part.flatten() for part in together])
            results[f"all_reduce_max {axes} {dtype}"] = r.all_reduce_max(x, axes)
            for dim in (0, 1):
                results[f"all_gather {axes} {dim} {dtype}"] = r.all_gather(x, axes, dim)
                results[f"reduce_scatter {axes} {dim} {dtype}"] = r.reduce_scatter(x, axes, dim)
                results[f"all_to_all {axes} {dim} {dtype}"] = r.all_to_all(x, axes, split=dim, join=1 - dim)
        pending = [r.all_gather_start(x, "tp", 2), r.reduce_scatter_start(x, "dp", 1), r.all_reduce_start(x, "tp")]
        pending += [r.all_to_all_start(x, "turned", 0, 2), r.all_reduce_max_start(x, "dp")]
        results |= {f"started {i} {dtype}": r.wait(started) for i, started in enumerate(pending)}
    results |= ragged(rank) | sends(rank)
    if rank in (0, 3):
        results["edge"] = r.all_reduce(torch.ones(2), "edge")
    for size in (3, 300_001, 5_000_000):  # in one step, in two, and in pieces
        gradients = torch.arange(float(size)) * (rank + 0.1)
        results[f"large {size}"] = (r.all_reduce(gradients, "turned") * 0.7)[:: size // 3]
        results[f"large started {size}"] = r.wait(r.all_reduce_start(gradients, "turned"))[:: size // 3]
        current().all_reduce_in_place(gradients, "world", "gradients")
        results[f"in place {size}"] = gradients[:: size // 3]
    return results


def ragged(rank):
    """Rank 1 has no rows, and the experts of rank 3 get none."""
    counts = torch.tensor([[1, 2, 0, 3, 1, 1, 0, 0], [0] * 8, [4, 0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0]][rank])
    rows = torch.arange(int(counts.sum()) * 2, dtype=torch.float64).reshape(-1, 2) + 100 * rank
    arrivals = r.exchange_counts(counts, "turned")
    arrived = r.send_rows(rows, counts, arrivals, "turned")
    back = r.return_rows(arrived, counts, arrivals, "turned")
    assert back.equal(rows)
    return {"arrivals": arrivals, "arrived": arrived, "counts": r.gather_counts(counts, "turned")}


def sends(rank):
    slots = (r.Slot("x", (2, 3), torch.float32, True), r.Slot("n", (4,), torch.int64, False))
    tensors = (torch.full((3, 2), float(rank)).t(), torch.arange(4) * rank)
    results = {}
    if rank == 0:
        current().send(tensors, 1)
    if rank == 1:
        x, n = current().receive(slots, 0)
        assert x.requires_grad and not n.requires_grad
        results |= {"received x": x, "received n": n}
    x, n = current().exchange(tensors, slots, rank ^ 2)
    return results | {"exchanged x": x, "exchanged n": n}


if __name__ == "__main__":
    rank, world, timeout = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), timedelta(seconds=30)
    store = find_store(rank, world, timeout)
    ranks = connect(store, rank, world, groups(rank), torch.device("cpu"), timeout)
    communicator.use(ranks)
    torch.save(program(rank), f"{sys.argv[1]}/{rank}.pt")
    ranks.close()
