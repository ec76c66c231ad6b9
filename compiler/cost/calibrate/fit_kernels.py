"""The constants of a processor and its memory with which the cost model gives the seconds that were measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from moec.compiler.cost.calibrate.least_squares import distance, error, least_squares
from moec.compiler.cost.calibrate.order import PRECISIONS, Precision
from moec.compiler.cost.calibrate.timings import Timing
from moec.compiler.cost.kernels import Kind, seconds
from moec.compiler.cost.machine import Machine
from moec.compiler.cost.read_hardware import most

_TILES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class KernelFit:
    """`machine` has the rates that were reached, and efficiencies of 1."""

    machine: Machine
    rates: Mapping[Precision, float]
    """FLOP/s of a large product."""
    best_rate: float
    """The highest of any product in the main precision."""
    best_bandwidth: float
    """The highest of any layer."""
    errors: Mapping[str, float]
    """Mean absolute relative, by what was fitted."""


def fit_kernels(timings: Sequence[Timing], main: Precision, start: Machine) -> KernelFit:
    """Memory first: products and attention go through it too."""
    memory, products = _of(timings, main, "memory"), _of(timings, main, "product", "grouped")
    machine = _fit(memory, start, lambda m, v: replace(m, memory_bandwidth=v[0], launch=v[1]), (1e10, 1e-5))
    best_bandwidth = max(map(_bandwidth, memory))
    errors = {"memory": _error(memory, machine)}
    bare = _fit_products(products, machine)
    for kind in ("product", "grouped"):
        errors[kind] = _error(_of(products, main, kind), bare)
    machine = replace(machine, compute=bare.compute, tile=bare.tile, depth=bare.depth, grouped=bare.grouped)
    rates: dict[Precision, float] = {main: machine.compute}
    for precision in PRECISIONS:
        if precision != main:
            others = _of(timings, precision, "product", "grouped")
            other = _fit(others, bare, lambda m, v: replace(m, compute=v[0]), (bare.compute,))
            rates[precision], errors[f"{precision} precision"] = other.compute, _error(others, other)
    machine = _fit_attention(timings, main, machine)
    for kind in ("attention", "attention_backward"):
        errors[kind] = _error(_of(timings, main, kind), machine)
    best_rate = max(timing.kernels[0].flops / timing.seconds for timing in products)
    return KernelFit(machine, rates, best_rate, best_bandwidth, errors)


def _fit_products(timings: Sequence[Timing], machine: Machine) -> Machine:
    """A call that stands alone costs less than one in a program: `launch` is its own here, and is not kept."""

    def vary(m: Machine, values: Sequence[float]) -> Machine:
        depth, grouped = max(1.0, values[1]), min(most("grouped"), values[3])
        return replace(m, compute=values[0], depth=depth, launch=values[2], grouped=grouped)

    start = (1e11, 16.0, 1e-6, 1.0)
    fits = [_fit(timings, replace(machine, tile=tile), vary, start) for tile in _TILES]
    measured = [timing.seconds for timing in timings]
    return min(fits, key=lambda found: distance(_model(timings, found), measured))


def _fit_attention(timings: Sequence[Timing], main: Precision, machine: Machine) -> Machine:
    forward, backward = _of(timings, main, "attention"), _of(timings, main, "attention_backward")
    machine = _fit(
        forward,
        machine,
        lambda m, v: replace(m, attention=(min(most("attention_forward"), v[0]), m.attention[1])),
        (0.5,),
    )
    return _fit(
        backward,
        machine,
        lambda m, v: replace(m, attention=(m.attention[0], min(most("attention_backward"), v[0]))),
        (0.5,),
    )


def _fit(
    timings: Sequence[Timing],
    machine: Machine,
    vary: Callable[[Machine, Sequence[float]], Machine],
    start: Sequence[float],
) -> Machine:
    measured = [timing.seconds for timing in timings]
    return vary(machine, least_squares(lambda values: _model(timings, vary(machine, values)), measured, start))


def _model(timings: Sequence[Timing], machine: Machine) -> list[float]:
    return [sum(seconds(kernel, machine) for kernel in timing.kernels) for timing in timings]


def _error(timings: Sequence[Timing], machine: Machine) -> float:
    return error(_model(timings, machine), [timing.seconds for timing in timings])


def _of(timings: Sequence[Timing], precision: Precision, *kinds: Kind) -> list[Timing]:
    return [each for each in timings if each.precision == precision and each.kernels[0].kind in kinds]


def _bandwidth(timing: Timing) -> float:
    return sum(kernel.moved for kernel in timing.kernels) / timing.seconds
