"""Initial values of weights: a function of the seed, the weight's name and the element's index, and of nothing else.

Any slice can be made by itself, so every mesh starts from the same model and a rank makes only what it holds. The
generator is splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014) used as a hash of a
counter; normal values are Box and Muller's, from two draws each.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
import torch
from numpy import float64, ndarray, uint64
from torch import Tensor

Draw = Callable[[uint64, ndarray], ndarray]

_CHUNK = 1 << 18  # elements at a time, to stay in the cache


@dataclass(frozen=True, slots=True)
class Initial:
    """The initial values under one seed; where the model is a module of the user's, also those that its code gives."""

    seed: int
    module: Callable[[str, Sequence[int], str, Sequence[slice]], Tensor] | None = None

    def __call__(self, name: str, shape: Sequence[int], init: str, where: Sequence[slice]) -> Tensor:
        """Elements `where` of the weight `name` of this shape, float64.

        init is "normal STD", "uniform BOUND" (from -BOUND to BOUND), "ones", "zeros", or "module".
        """
        if init == "module":
            if self.module is None:
                raise ValueError(f"initial value `{init}` of {name}: the plan has no module of the user's")
            return self.module(name, shape, init, where)
        kind, *numbers = init.split()
        values = numpy.empty([part.stop - part.start for part in where])
        match kind, numbers:
            case "zeros", []:
                values.fill(0.0)
            case "ones", []:
                values.fill(1.0)
            case "normal" | "uniform", [scale]:
                draw = _normal if kind == "normal" else _uniform
                starts = [part.start for part in where]
                _fill(values, starts, _strides(shape), _key(self.seed, name), draw)
                values *= float(scale)
            case _:
                raise ValueError(
                    f"initial value `{init}` of {name}: not normal STD, uniform BOUND, ones, zeros or module"
                )
        return torch.from_numpy(values)


def splitmix64(counter: ndarray) -> ndarray:
    """uint64 -> well mixed uint64."""
    z = (counter + uint64(1)) * uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> uint64(27))) * uint64(0x94D049BB133111EB)
    return z ^ (z >> uint64(31))


def _fill(out: ndarray, starts: list[int], strides: list[int], key: int, draw: Draw) -> None:
    """Halve the longest dim until a piece is small."""
    if out.size == 0:
        return
    if out.size > _CHUNK:
        dim = int(numpy.argmax(out.shape))
        half = out.shape[dim] // 2
        low, high = numpy.split(out, [half], axis=dim)
        _fill(low, starts, strides, key, draw)
        _fill(high, [start + half * (d == dim) for d, start in enumerate(starts)], strides, key, draw)
        return
    index = numpy.zeros(out.shape, uint64)
    for dim, (start, stride) in enumerate(zip(starts, strides, strict=True)):
        steps = numpy.arange(start, start + out.shape[dim], dtype=uint64) * uint64(stride)
        index += steps.reshape([-1 if d == dim else 1 for d in range(out.ndim)])
    out[...] = draw(uint64(key), index)


def _uniform(key: uint64, index: ndarray) -> ndarray:
    """In [-1, 1)."""
    return 2.0 * _unit(key, index) - 1.0


def _normal(key: uint64, index: ndarray) -> ndarray:
    """Of variance 1; rounded to float32, so that maths libraries that differ in the last bit give the same weights."""
    twice = index * uint64(2)
    radius = numpy.sqrt(-2.0 * numpy.log(1.0 - _unit(key, twice)))
    values = radius * numpy.cos(2.0 * numpy.pi * _unit(key, twice + uint64(1)))
    return values.astype(numpy.float32).astype(float64)


def _unit(key: uint64, counter: ndarray) -> ndarray:
    """In [0, 1), 53 bits."""
    return (splitmix64(counter ^ key) >> uint64(11)).astype(float64) * 2.0**-53


def _key(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _strides(shape: Sequence[int]) -> list[int]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return strides[::-1]
