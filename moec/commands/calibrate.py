"""`moec calibrate`."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moec.commands.outputs import HARDWARE, check_output, write_output
from moec.commands.progress import working
from moec.commands.steps import MOST_PROCESSES
from moec.commands.tell import put, say
from moec.dsl.diagnostics import plan_error, printable

if TYPE_CHECKING:
    from moec.compiler.cost.calibrate import Order


def calibrate_command(options: argparse.Namespace, _: float) -> int:
    """`moec calibrate`: measure this machine, and write it down as an entry of the hardware table."""
    name, path = options.name, Path(options.output) if options.output is not None else None
    if not (name.isidentifier() and name.isascii()) or name == "gpu":
        help = "take letters, digits and underscores, a letter first, such as --name lab_node; `gpu` is any GPU"
        raise plan_error("E113", f"`{name}` cannot be the name of hardware", help)
    _refuse_known(name)
    if path is not None:
        check_output(path, HARDWARE)
    order = _order(options)
    from moec.compiler.cost.calibrate import Failed, calibrate

    try:
        with working(f"measuring what one of {order.ranks} ranks gets"):
            text = calibrate(name, order)
    except Failed as fault:
        print(printable(f"error: the processes that measure did not finish: {fault}"), file=sys.stderr)
        return 1
    if path is None:
        put(text)
    else:
        write_output(path, HARDWARE, text)
        say(
            f"{path} holds what was measured",
            f"use it: moec estimate PLAN --hardware {path} --set hardware={name}",
        )
    return 0


def _refuse_known(name: str) -> None:
    """An entry by the name of one that moec carries could not be told from it."""
    from moec.compiler.cost.machine import read_table

    if name in read_table():
        help = "take one that the table does not have, such as --name lab_node"
        raise plan_error("E113", f"`{name}` is an entry of moec's own table", help)


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
