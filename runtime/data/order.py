"""Which item a sample is: each epoch has all items once, in an order that is computed and never stored.

An epoch's order is a Feistel network over pairs of numbers, walked on while it leaves the range (Black and Rogaway:
Ciphers with arbitrary finite domains, 2002), under keys that the seed and the epoch give. So sample i is the same item
on every mesh and after every resume, in constant time and memory.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt

from moec.runtime.data.source import Items, Sample

_ROUNDS = 3  # each changes both numbers of a pair
_64_BITS = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Order:
    """Of so many items, under a seed."""

    count: int
    seed: int

    def item(self, number: int) -> int:
        """The item that sample `number` is."""
        epoch, place = divmod(number, self.count)
        keys = _keys(self.seed, epoch)
        rows = isqrt(self.count - 1) + 1
        columns = -(-self.count // rows)
        place = _permuted(place, rows, columns, keys)
        while place >= self.count:
            place = _permuted(place, rows, columns, keys)
        return place


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Items in the order of a seed, epoch after epoch."""

    items: Items
    seed: int

    @property
    def fingerprint(self) -> str:
        return f"{self.items.fingerprint}, order {self.seed}"

    def sample(self, index: int) -> Sample:
        return self.items.sample(Order(len(self.items), self.seed).item(index))


def _permuted(place: int, rows: int, columns: int, keys: tuple[tuple[int, int], ...]) -> int:
    """One to one on range(rows * columns): each round adds to one number of the pair what the other gives."""
    row, column = divmod(place, columns)
    for first, second in keys:
        row = (row + _mixed(column ^ first)) % rows
        column = (column + _mixed(row ^ second)) % columns
    return row * columns + column


def _mixed(x: int) -> int:
    """The last steps of splitmix64, as in `initial`; here of single numbers, for which arrays are slow."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return x ^ (x >> 31)


@lru_cache(maxsize=16)
def _keys(seed: int, epoch: int) -> tuple[tuple[int, int], ...]:
    digest = hashlib.blake2b(f"order {seed} {epoch}".encode(), digest_size=16 * _ROUNDS).digest()
    keys = [int.from_bytes(digest[n : n + 8], "little") for n in range(0, len(digest), 8)]
    return tuple(zip(keys[::2], keys[1::2], strict=True))
