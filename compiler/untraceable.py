"""Says what torch found wrong with a model that it cannot run on the meta device or export."""

import traceback
from pathlib import Path

import torch

from moec.compiler.source_names import Frame
from moec.dsl.diagnostics import PlanError, plan_error

_TORCH, _OWN = str(Path(torch.__file__).parent), str(Path(__file__).parent)
_ONE_TYPE = "give both one type, as in `mask.to(x.dtype)`: the model is traced in bfloat16"


def untraceable(error: BaseException) -> PlanError:
    """What torch says about a model that it cannot run on the meta device or export, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = f"{type(error).__name__}: {lines[0][:200] if lines else ''}".rstrip(": ")
    frames = _frames_of_error(error)
    place = [frame.shown for frame in frames[-1:]]
    return plan_error("E403", f"the model cannot be traced: {said}", *place, _remedy(str(error), bool(place)))


def _remedy(said: str, own: bool) -> str:
    """What mends a fault of torch, by its words; `own` if the model's own code was running."""
    signs = (
        ("overflow", "make its sizes smaller"),
        ("on the expected device meta", "make tensors where the others are, as in `torch.arange(n, device=x.device)`"),
        ("dtype", _ONE_TYPE),
        ("expected scalar type", _ONE_TYPE),
    )
    found = next((help for sign, help in signs if sign in said), None)
    depends = any(
        sign in said for sign in ("data-dependent", "meta tensor", "Could not guard", "unbacked", "fake impl")
    )
    if found is None and (depends or not own):
        return "sizes and branches must not depend on data"
    return found or "its forward runs without data and in bfloat16, at the plan's sizes and at those of `small`"


def _frames_of_error(error: BaseException) -> list[Frame]:
    """Where an error went through, outermost first, without torch and the compiler."""
    frames = []
    for file, line, function, code in traceback.extract_tb(error.__traceback__):
        if not file.startswith((_TORCH, _OWN, "<")):
            frames.append(Frame(file, line or 0, function, code or function))
    return frames
