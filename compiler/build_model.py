"""Builds the plan's model on the meta device: at the plan's own sizes, and at the small ones that are verified."""

import importlib
import sys
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import nn

from moec.compiler.model import Input, Model
from moec.compiler.models.described import describe
from moec.compiler.undrawn import undrawn
from moec.dsl.diagnostics import Diagnostic, PlanError, plan_error
from moec.dsl.plan import Argument, Decoder, Imported, Plan
from moec.dsl.suggest import did_you_mean


def build_model(plan: Plan) -> Model:
    """The model of a plan, without a single real weight; raises PlanError where a user's module cannot be built."""
    model = _described(plan, plan.model) if isinstance(plan.model, Decoder) else _imported(plan, plan.model)
    _check_patterns(plan, model.modules[0])
    return model


def _check_patterns(plan: Plan, module: nn.Module) -> None:
    """Raise PlanError for patterns of the plan that match no weight, or none with so many dims."""
    ranks = {name: x.dim() for name, x in (*module.named_parameters(), *module.named_buffers())}
    own = plan.model.weights if isinstance(plan.model, Imported) else ()
    faults = []
    for pattern in (*plan.patterns, *own):
        matched = {name: rank for name, rank in ranks.items() if fnmatchcase(name, pattern.pattern)}
        label = (pattern.place.label("this pattern"),) if pattern.place else ()
        if not matched:
            headline = f"`{pattern.pattern}` is the name of no weight"
            faults.append(Diagnostic("E414", headline, label, did_you_mean(pattern.pattern, ranks, "weights")))
        elif len(pattern.dims) not in matched.values():
            name, rank = next(iter(matched.items()))
            headline = f"`{pattern.pattern}` names {len(pattern.dims)} dims, and `{name}` has {rank}"
            faults.append(Diagnostic("E414", headline, label, (f"write {rank} names, `_` for a dim without one",)))
    faults += _decay_faults(plan, module)
    if faults:
        raise PlanError(faults)


def _decay_faults(plan: Plan, module: nn.Module) -> list[Diagnostic]:
    """Patterns of weights that decay, or do not, which match none."""
    names = [name for name, _ in module.named_parameters()]
    faults = []
    for setting, patterns in (("train.decayed", plan.train.decayed), ("train.undecayed", plan.train.undecayed)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                label = plan.places[setting].label("nothing decays more or less for it")
                help = did_you_mean(pattern, names, "weights")
                faults.append(Diagnostic("E414", f"`{pattern}` is the name of no weight", (label,), help))
    return faults


def _described(plan: Plan, model: Decoder) -> Model:
    try:
        return describe(plan, model)
    except RuntimeError as fault:  # torch counts the bytes of a tensor in 64 bits
        headline = f"the model cannot be constructed: {_said(fault)}"
        raise plan_error("E402", headline, "make its sizes smaller") from None


def _imported(plan: Plan, model: Imported) -> Model:
    for folder in (str(Path(plan.source.path).resolve().parent), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    arguments = dict(model.arguments)
    small_arguments = {**arguments, **dict(model.small)}
    kind = _load(model)
    modules = tuple(_construct(model, kind, given) for given in (arguments, small_arguments))
    batch = plan.schedule.batch // plan.schedule.accumulate
    small_batch = _small_batch(plan, batch, small_arguments)
    sizings = tuple(
        {"batch": n} | {name: size for name, size in given.items() if type(size) is int and size > 0}
        for n, given in ((batch, arguments), (small_batch, small_arguments))
    )
    inputs = []
    for whole, little in zip(model.inputs, model.small_inputs, strict=True):
        both = tuple(
            tuple(sizing[d] if isinstance(d, str) else d for d in given.dims)
            for given, sizing in zip((whole, little), sizings, strict=True)
        )
        below = tuple(
            sizing[given.below] if isinstance(given.below, str) else given.below
            for given, sizing in zip((whole, little), sizings, strict=True)
        )
        dims = tuple(d if isinstance(d, str) else None for d in whole.dims)
        inputs.append(Input(whole.name, whole.kind, dims, (both[0], both[1]), (below[0], below[1])))
    patterns = tuple((p.pattern, p.dims) for p in (*plan.patterns, *model.weights))
    initial = (("*", "module"),)
    return Model((modules[0], modules[1]), (sizings[0], sizings[1]), tuple(inputs), patterns, initial)


def _small_batch(plan: Plan, batch: int, arguments: Mapping[str, Argument]) -> int:
    """A batch that splits as the plan's does, of at least two samples a rank if that has more, and like no argument."""
    parts = plan.mesh.size(plan.axes_of("batch"))
    if batch <= parts:
        return parts
    small = 2 * parts
    while small in arguments.values():
        small += parts
    return small


def _load(model: Imported) -> type[nn.Module]:
    module_name, _, name = model.target.partition(":")
    try:
        names = vars(importlib.import_module(module_name))
    except (Exception, SystemExit) as fault:
        help = "modules are looked for in the plan's folder, the working folder and the environment"
        raise _fault(model, "E401", f"`{module_name}` cannot be imported: {_said(fault)}", help) from None
    found = names.get(name)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        what = "no such name" if found is None else "not a torch.nn.Module class"
        classes = [key for key, value in names.items() if isinstance(value, type) and issubclass(value, nn.Module)]
        help = did_you_mean(name, classes, "its classes") if classes else ("give it a class of this name",)
        raise _fault(model, "E401", f"`{model.target}` is {what}", *help)
    return found


def _construct(model: Imported, kind: type[nn.Module], arguments: Mapping[str, Argument]) -> nn.Module:
    try:
        with undrawn():
            return kind(**arguments).to("meta", torch.bfloat16)
    except (Exception, SystemExit) as fault:
        help = "it is given what stands in `model { ... }`, and then the same with what stands in `small { ... }`"
        raise _fault(model, "E402", f"`{model.target}` cannot be constructed: {_said(fault)}", help) from None


def _fault(model: Imported, code: str, headline: str, *help: str) -> PlanError:
    return plan_error(code, headline, *help, label=model.place.label("this model") if model.place else None)


def _said(fault: BaseException) -> str:
    lines = str(fault).strip().splitlines()
    return f"{type(fault).__name__}: {lines[0] if lines else ''}".rstrip(": ")
