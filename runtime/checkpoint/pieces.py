"""The state of a rank in pieces: by a name and a slice that mean the same on every mesh."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from moec.checkpoint.boxes import Box, volume
from moec.checkpoint.manifest import Progress
from moec.runtime.run import Run
from moec.runtime.shard import Shard, is_owner


@dataclass(frozen=True, slots=True)
class Piece:
    """This rank's part of one tensor of the state: `weight/NAME`, `mean/NAME` or `square/NAME`.

    A weight is the one that AdamW updates: under bf16 the float32 one, of which the regions read a rounding.
    """

    key: str
    shape: tuple[int, ...]  # of the whole
    box: Box
    value: Tensor  # this rank's own memory, without padding
    owned: bool  # of all ranks that have it, this is the one that writes it


def pieces_of(run: Run) -> tuple[Piece, ...]:
    """What one rank holds, in an order that depends on its program alone."""
    return tuple([piece for shard in run.weights.shards.values() for piece in _pieces(run, shard)])


def progress_of(run: Run, seed: int, data: str) -> Progress:
    """How far a run has come. `data` is the fingerprint of what it reads."""
    experts = {name: tuple(counts) for name, counts in run.expert_load.state().items()}
    return Progress(run.step, run.cursor, run.optimizer.updates, seed, data, experts)


def _pieces(run: Run, shard: Shard) -> Iterator[Piece]:
    box = tuple([(part.start, part.stop) for part in shard.kept])
    owned = is_owner(shard.weight, run.place) and run.job.weights[shard.name].stages[0] == run.place.stage
    if volume(box) == 0:  # all of it is padding
        return
    for part, value in run.optimizer.parts(shard).items():
        yield Piece(f"{part}/{shard.name}", shard.weight.shape, box, value[shard.inside], owned)
