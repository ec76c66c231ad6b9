"""What a rank saw of the first value that is not finite, and whose of all ranks it is."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["weight", "made", "came", "arrived"]
_WORST_FIRST: tuple[Kind, ...] = ("weight", "made", "came", "arrived")


@dataclass(frozen=True, slots=True)
class Origin:
    """The first that a rank saw of it: a weight, a result of finite operands, or what was so when it came."""

    kind: Kind
    what: str  # in words
    micro_batch: int  # -1 where it is of none
    at: str  # the instruction, as `watch.sight` says it

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def of(text: str) -> "Origin":
        return Origin(**json.loads(text))


def first_of(origins: Mapping[int, Origin]) -> int | None:
    """The rank that it began on. On others it arrived, and only where it did so on all is it the sum that is too large.

    Ranks that compute the same see the same: the lowest is named.
    """
    if not origins:
        return None
    return min(origins, key=lambda rank: (_WORST_FIRST.index(origins[rank].kind), rank))


def is_spoilt(x: object, infinities: bool = True) -> bool:
    """Has it a value that is not finite? Without `infinities`, -inf is none: what carries no gradient may be masked."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return False
    x = x.detach()
    fine = x.isfinite() if infinities else x.isfinite() | (x == -torch.inf)
    return not bool(fine.all())
