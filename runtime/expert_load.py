"""How often every expert was chosen, and how many choices it had no room for, over all ranks and layers.

A rank is told of every decision about its own tokens (`routing.watch`), and counts at the end of a step. The counts of
all ranks are added up together with loss and norm. Ranks that hold copies of a token count it once each: so the sum is
divided by how many there are, which shows since the choices of a step are known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_HELD = 1 << 20  # choices that are kept before they are counted: 8 MiB


@dataclass(frozen=True, slots=True)
class Router:
    """Where a layer of the model chooses experts, as all ranks know it."""

    name: str  # module path
    stage: int
    experts: int
    choices: int  # of a step: its tokens times top_k


class ExpertLoad:
    """The counts of one rank, and of the job.  Satisfies `Watcher` and `Summand`."""

    def __init__(self, routers: Sequence[Router], stage: int, device: torch.device) -> None:
        self.routers = routers
        self._sizes = np.array([router.experts for router in routers], dtype=np.int64)
        self._ends = np.cumsum(self._sizes)
        self._choices = np.array([router.choices for router in routers], dtype=np.int64)
        count = int(self._sizes.sum())
        self._chosen = np.zeros(count, dtype=np.int64)  # in the last step, of all routers one after the other
        self._dropped = np.zeros(count, dtype=np.int64)
        self._total = np.zeros(count, dtype=np.int64)  # chosen since the run began
        self._starts = [int(self._ends[n] - self._sizes[n]) for n, its in enumerate(routers) if its.stage == stage]
        self._counts = torch.zeros((count, 2), dtype=torch.int64, device=device)  # without room and with, in this step
        self._experts: list[Tensor] = []  # decisions that are not counted yet, from layer to layer, over and over
        self._kept: list[Tensor] = []
        self._held = 0  # choices
        self._offsets: dict[tuple[int, ...], Tensor] = {}  # by the sizes of decisions

    def chosen(self, expert: Tensor) -> None:
        if self._held > _HELD and self._starts and len(self._experts) % len(self._starts) == 0:
            self._count()
        self._held += expert.numel()
        self._experts.append(expert.reshape(-1))  # not a view of all the scores' order

    def kept(self, kept: Tensor) -> None:
        self._kept.append(kept.reshape(-1))

    def forget(self) -> None:
        """What was told since the last step: a replay's decisions are of none."""
        self._counts.zero_()
        self._drop()

    def _drop(self) -> None:
        self._experts.clear()
        self._kept.clear()
        self._held = 0

    def mine(self) -> Tensor:
        """This rank's counts of the step."""
        if self._experts:
            self._count()
        counts = self._counts.double().view(-1)
        self._counts.zero_()
        return counts

    def told(self, total: Tensor) -> None:
        """The counts of all ranks together."""
        if not self.routers:
            return
        dropped, kept = total.view(-1, 2).cpu().numpy().astype(np.int64).T
        sums = np.add.reduceat(dropped + kept, self._ends - self._sizes)
        copies = np.repeat(np.maximum(1, sums // self._choices), self._sizes)
        self._dropped, self._chosen = dropped // copies, (dropped + kept) // copies
        self._total += self._chosen

    def counts(self) -> dict[str, list[int]]:
        """How often each expert was chosen in the last step, by router."""
        return {name: counts.tolist() for name, counts in self._split(self._chosen)}

    def dropped(self) -> dict[str, int]:
        """Choices of the last step for which there was no room, by router."""
        return {name: int(counts.sum()) for name, counts in self._split(self._dropped)}

    def state(self) -> dict[str, list[int]]:
        """Choices of each expert since the run began, by router."""
        return {name: counts.tolist() for name, counts in self._split(self._total)}

    def restore(self, state: Mapping[str, Sequence[int]]) -> None:
        """Count on from there, for those routers that are the same."""
        for name, counts in self._split(self._total):
            before = state.get(name, ())
            counts[:] = before if len(before) == len(counts) else 0

    def _split(self, counts: NDArray[np.int64]) -> list[tuple[str, NDArray[np.int64]]]:
        """By router, as views."""
        parts = np.split(counts, self._ends[:-1]) if self.routers else []
        return [(router.name, part) for router, part in zip(self.routers, parts, strict=True)]

    def _count(self) -> None:
        """All decisions at once. A program that a person edited may decide elsewhere, too: then none count."""
        if self._starts and len(self._experts) % len(self._starts) == 0:
            keys = torch.cat(self._experts) + self._offset()
            room = torch.cat(self._kept) if self._kept else torch.ones_like(keys)
            if len(room) == len(keys):
                self._counts += torch.bincount(2 * keys + room, minlength=self._counts.numel()).view(-1, 2)
        self._drop()

    def _offset(self) -> Tensor:
        """For each of the choices where the counts of its router begin."""
        sizes = tuple([expert.numel() for expert in self._experts])
        if sizes not in self._offsets:
            starts = torch.tensor(self._starts * (len(sizes) // len(self._starts)), device=self._counts.device)
            self._offsets[sizes] = starts.repeat_interleave(torch.tensor(sizes, device=starts.device))
        return self._offsets[sizes]
