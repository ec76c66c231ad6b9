"""`moec calibrate`."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moec.commands.progress import working
from moec.commands.replace_file import replace_file
from moec.commands.steps import MOST_PROCESSES
from moec.dsl.diagnostics import PlanError, plan_error

if TYPE_CHECKING:
    from moec.compiler.cost.calibrate import Order


def calibrate_command(options: argparse.Namespace, _: float) -> int:
    """`moec calibrate`: measure this machine, and write it down as an entry of the hardware table."""
    name, path = options.name, Path(options.output) if options.output is not None else None
    if not (name.isidentifier() and name.isascii()) or name == "gpu":
        help = "take letters, digits and underscores, a letter first, such as --name lab_node; `gpu` is any GPU"
        raise plan_error("E113", f"`{name}` cannot be the name of hardware", help)
    if path is not None:
        _check(path)
    order = _order(options)
    from moec.compiler.cost.calibrate import Failed, calibrate

    try:
        with working(f"measuring what one of {order.ranks} ranks gets"):
            text = calibrate(name, order)
    except Failed as fault:
        print(f"error: the processes that measure did not finish: {fault}", file=sys.stderr)
        return 1
    if path is None:
        print(text, end="")
    else:
        _write(path, text)
        print(
            f"{path} holds what was measured",
            f"use it: moec estimate PLAN --hardware {path} --set hardware={name}",
            sep="\n",
        )
    return 0


def _order(options: argparse.Namespace) -> "Order":
    import torch

    from moec.compiler.cost.calibrate import Order, cores

    gpus = torch.cuda.device_count()
    device = options.device or ("cuda" if gpus else "cpu")
    if device == "cuda" and not gpus:
        raise plan_error("E115", "torch finds no GPU here", "measure the processors: --device cpu")
    most, usual = (gpus, gpus) if device == "cuda" else (MOST_PROCESSES, min(MOST_PROCESSES, cores()))
    ranks = options.ranks if options.ranks is not None else usual
    if not 1 <= ranks <= most:
        headline = f"{ranks} ranks cannot be measured here"
        raise plan_error("E115", headline, f"write a number from 1 to {most}: --ranks {most}")
    return Order(device, ranks, options.quick)


def _check(path: Path) -> None:
    """Raise PlanError, before anything is measured, if the file can have no place or holds what others wrote."""
    from moec.compiler.cost.calibrate import WRITTEN

    if not path.absolute().parent.is_dir():
        raise _unwritable(path, "its folder is not there", f"make the folder first: mkdir -p {path.parent}")
    if path.is_dir():
        raise _unwritable(path, "it is a folder", f"name a file: -o {path / 'hardware.toml'}")
    if path.exists() and not path.read_bytes().startswith(WRITTEN.encode()):
        raise plan_error("E505", f"`{path}` is there already, and stays as it is", "name another file: -o FILE")


def _write(path: Path, text: str) -> None:
    try:
        replace_file(path, text.encode())
    except OSError as fault:
        raise _unwritable(path, fault.strerror or str(fault), "name another file: -o FILE") from None


def _unwritable(path: Path, reason: str, help: str) -> PlanError:
    return plan_error("E507", f"`{path}` cannot be written: {reason}", help)
