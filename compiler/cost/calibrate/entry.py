"""An entry of the hardware table as TOML, with what the model is off by where its constants stand."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict

import torch

from moec.compiler.cost.calibrate.fit_machine import MachineFit
from moec.compiler.cost.calibrate.order import Order

WRITTEN = "# Measured by moec calibrate, "
"""How a file of it begins."""

_UNDISTURBED = 0.9

_BESIDE: dict[str, tuple[str, ...]] = {
    "compute": ("half precision", "single precision", "double precision"),
    "depth": ("product",),
    "grouped": ("grouped",),
    "attention": ("attention", "attention_backward"),
    "launch": ("memory",),
    "collective_latency": ("messages",),
}
"""Beside one of the constants that were fitted together: what is off by how much."""


def entry_text(name: str, order: Order, fit: MachineFit, share: float) -> str:
    """The whole file: seconds, bytes, FLOP/s. `share` is what the ranks had of the time that they could have had."""
    source = f"{order.ranks} rank{'s' * (order.ranks > 1)}, torch {torch.__version__.partition('+')[0]}"
    values = {
        "title": f'"{_plain(fit.machine.title)}, one of {order.ranks} at work"',
        "processor": f'"{fit.machine.processor}"',
        **_values(fit),
        "assumed": _listed(f'"{field}"' for field in fit.machine.assumed),
        "sources": _listed([f'"measured by moec calibrate, {source}"']),
    }
    lines = [f"{WRITTEN}{source}: what one of them gets while all run.", *_doubt(share), f"[{name}]"]
    lines += [f"{field} = {value}{_beside(field, fit.errors)}" for field, value in values.items()]
    return "\n".join(lines) + "\n"


def _values(fit: MachineFit) -> dict[str, str]:
    """Every number of a machine; FLOP/s by precision."""
    rates = [f"{precision} = {_number(rate)}" for precision, rate in fit.compute.items()]
    numbers = {field: _number(x) for field, x in asdict(fit.machine).items() if isinstance(x, int | float)}
    attention = _listed(map(_number, fit.machine.attention))
    return numbers | {"compute": f"{{ {', '.join(rates)} }}", "attention": attention}


def _doubt(share: float) -> list[str]:
    if share >= _UNDISTURBED:
        return []
    return [f"# Other work took {1 - share:.0%} of the processors meanwhile: better measure when they are free."]


def _beside(field: str, errors: Mapping[str, float]) -> str:
    said = [f"{what.replace('_', ' ')} {errors[what]:.0%}" for what in _BESIDE.get(field, ()) if what in errors]
    return f"  # off by: {', '.join(said)}" if said else ""


def _listed(items: Iterable[str]) -> str:
    return f"[{', '.join(items)}]"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _plain(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable() and letter not in '"\\')
