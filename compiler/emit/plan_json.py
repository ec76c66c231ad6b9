"""plan.json: the resolved plan, the placement of every weight, and what the runtime reads."""

import os
from collections.abc import Mapping
from pathlib import Path

import moec
from moec.compiler.decays import decays
from moec.compiler.emit.plan_lines import plan_lines
from moec.compiler.program import Program
from moec.compiler.routers import routers_of
from moec.dsl.plan import Imported


def plan_json(program: Program, sizing: int, output: Path | None, double: bool) -> dict[str, object]:
    """A tree of plain values; `output` is where it will be, `double` makes it a job in float64."""
    plan = program.plan
    train, schedule = plan.train, plan.schedule
    batch = program.inputs[0].sizes[sizing][0] * schedule.accumulate
    return {
        "name": plan.name,
        "moec": moec.__version__,
        "world_size": program.world_size,
        "parameters": program.parameters,
        "mesh": {axis.name: {"size": axis.size, "over": list(axis.over)} for axis in plan.mesh.axes},
        "schedule": {"kind": schedule.kind, "batch": batch, "accumulate": schedule.accumulate},
        "train": {
            "optimizer": train.optimizer,
            "lr": train.lr,
            "warmup": train.warmup,
            "decay": train.decay,
            "steps": train.steps,
            "final_lr": train.final_lr,
            "beta1": train.beta1,
            "beta2": train.beta2,
            "eps": train.eps,
            "weight_decay": train.weight_decay,
            "clip": train.clip,
            "not_finite": train.not_finite,
            "precision": "fp64" if double else train.precision,
            "seed": train.seed,
        },
        "initial": _path(program, train.initial, output) if train.initial is not None else None,
        "inputs": {
            given.name: {"kind": given.kind, "shape": list(given.sizes[sizing][1:]), "below": given.below[sizing]}
            for given in program.inputs
        },
        "loss": "sum" if program.count is not None else "mean",
        "data": plan.model.data if isinstance(plan.model, Imported) else None,
        "model": _model(program, sizing, output),
        "routers": routers_of(program, sizing),
        "weights": (weights := _weights(program, sizing)),
        **_unread(program, weights),
        "lines": plan_lines(program),
    }


def _model(program: Program, sizing: int, output: Path | None) -> dict[str, object] | None:
    """Where the user's module is, whose own code makes its initial values."""
    model = program.plan.model
    if not isinstance(model, Imported):
        return None
    arguments = dict(model.arguments) | (dict(model.small) if sizing else {})
    return {"target": model.target, "arguments": arguments, "path": [_path(program, ".", output)]}


def _path(program: Program, path: str, output: Path | None) -> str:
    """A path that the plan names, as it is from the folder of the programs."""
    named = os.path.normpath(Path(program.plan.source.path).resolve().parent / path)
    return Path(os.path.relpath(named, output.resolve())).as_posix() if output else named


def _unread(program: Program, weights: Mapping[str, object]) -> dict[str, object]:
    """What the module saves and no program reads, as the count of a batch norm, where there is any."""
    names = sorted(program.state - weights.keys() - program.shared.keys())
    return {"unread": names} if names else {}


def _weights(program: Program, sizing: int) -> dict[str, object]:
    found: dict[str, object] = {}
    for stage in program.stages:
        for name, parameter, value in program.weights(stage.calls):
            found[name] = {
                "shape": [int(program.sizes.value(size, sizing)) for size in value.shape],
                "split": [list(axes) for axes in value.placement.split],
                "dims": list(value.dims),
                "stages": list(program.spans.get(name, (stage.index,))),
                "gradient_summed_over": list(parameter.summed),
                "trainable": parameter.trainable,
                "also": [other for other, first in program.shared.items() if first == name],
                "saved": name not in program.unsaved,
                "decays": parameter.trainable and decays(program.plan.train, name, len(value.shape)),
            }
    return found
