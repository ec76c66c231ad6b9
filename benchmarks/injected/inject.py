"""What a rank does at one moment of a run to make it fail: imported by the rank's edited file, and by no other."""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from moec.runtime.run import Run

FAULT = json.loads((Path(__file__).parent / "fault.json").read_text())
KIND, STEP, MICRO_BATCH, PHASE = FAULT["kind"], FAULT["step"], FAULT["micro_batch"], FAULT["phase"]
VALUE = float("nan") if "NaN" in KIND else float("inf")


def wrap(stage: ModuleType) -> None:
    """Let it happen in the stage's forward or backward of one micro-batch of one step."""
    if "region" in FAULT:
        spoil_region(stage, FAULT["region"])
    where = "forward" if KIND in SPOILS or "region" in FAULT else PHASE
    inner = vars(stage)[where]

    def outer(run: Run, i: int, *rest: tuple[Tensor, ...]) -> object:
        now = run.step + 1 == STEP and i == MICRO_BATCH
        if KIND == "slow":
            time.sleep(0.3 if run.step + 1 >= STEP and i == MICRO_BATCH else 0)
        elif now and "region" in FAULT:
            LEFT[0] = FAULT["nth"]
        elif now and KIND in SPOILS:
            SPOILS[KIND](run)
        elif now:
            ENDS[KIND]()
        return inner(run, i, *rest)

    vars(stage)[where] = outer


LEFT = [0]  # calls of the region until the one that is spoilt


def spoil_region(stage: ModuleType, name: str) -> None:
    """The result of a region, or the gradient that one makes: by its own code, as a bug in the model would."""
    region = vars(stage)[name]

    def spoilt(*args: object) -> object:
        result = region(*args)
        LEFT[0] -= 1
        if LEFT[0]:
            return result
        first = result if isinstance(result, Tensor) else next(x for x in result if x.requires_grad)
        made = _Spoil.apply(first)
        return made if isinstance(result, Tensor) else tuple(made if x is first else x for x in result)

    spoilt.__name__ = name
    vars(stage)[name] = spoilt


class _Spoil(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return spoilt_copy(x) if PHASE == "forward" else x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return spoilt_copy(gradient) if PHASE == "backward" else gradient


def spoilt_copy(x: Tensor) -> Tensor:
    x = x.clone()
    x.view(-1)[0] = VALUE
    return x


def raise_error() -> None:
    raise ValueError("an error of the model's own")


def exhaust() -> None:
    raise MemoryError


def allocate() -> None:
    torch.empty(1 << 52)


def fail_to_read() -> None:
    raise OSError(5, "Input/output error", "/data/tokens.bin")


def loop() -> None:
    while True:
        time.sleep(0)


def hold() -> None:
    """Sleep in C, which is not a call of another rank."""
    time.sleep(1e6)


ENDS: dict[str, Callable[[], None]] = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0) and None,
    "aborted": os.abort,
    "memory error": exhaust,
    "tensor too large": allocate,
    "exception": raise_error,
    "data unreadable": fail_to_read,
    "exit 0": lambda: sys.exit(0),
    "exit at once": lambda: os._exit(0),
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "endless loop": loop,
    "hangs": hold,
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
}


def spoil_weight(run: Run) -> None:
    run.weights.shards[FAULT["weight"]].value.detach().view(-1)[0] = VALUE


def drift(run: Run) -> None:
    run.weights.shards[FAULT["weight"]].value.detach().view(-1)[0] += 1e-6


SPOILS: dict[str, Callable[[Run], None]] = {
    "NaN in a weight": spoil_weight,
    "infinity in a weight": spoil_weight,
    "a copy drifts": drift,
}
