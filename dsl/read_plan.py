"""Reads a plan: its text, the overrides of the command line, its blocks, and everything that needs no trace."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath

from moec.dsl.bindings import bind
from moec.dsl.blocks import find_blocks
from moec.dsl.check_batch import check_batch
from moec.dsl.check_conflicts import check_conflicts
from moec.dsl.check_pipeline import check_pipeline
from moec.dsl.check_sizes import check_sizes
from moec.dsl.check_training import check_training
from moec.dsl.diagnostics import PlanError
from moec.dsl.mesh import Axis
from moec.dsl.nearest_mesh import with_nearest_meshes
from moec.dsl.overrides import apply_overrides
from moec.dsl.parse import parse_plan
from moec.dsl.plan import Decoder, Imported, Plan
from moec.dsl.read_import import read_import
from moec.dsl.read_machine import read_hardware, read_requirements
from moec.dsl.read_mesh import read_axes, read_mesh
from moec.dsl.read_model import read_model
from moec.dsl.read_shard import check_names, read_shard
from moec.dsl.read_training import read_communicate, read_schedule, read_train
from moec.dsl.reading import Reading
from moec.dsl.report import Report
from moec.dsl.syntax import Block, Document
from moec.dsl.text import read_source
from moec.dsl.warn_unused import warn_unused

CHECKS = (
    check_pipeline,  # one plain axis, no more stages than layers
    check_batch,  # into micro-batches, and those over the ranks
    check_sizes,  # every other dim over its axes
    check_conflicts,  # no axis twice in a weight, none in vain
    check_training,  # where the learning rate goes
    warn_unused,  # what is said and does nothing
)


def read_plan(path: str, overrides: Sequence[str] = ()) -> Plan:
    """The plan in the file at `path`, with each override `path.to.key=value` in the place of what the text says.

    Raises PlanError with all the faults of the first phase that has any: the text, its grammar, the overrides, what
    each block says, and how the blocks fit together.
    """
    document = apply_overrides(parse_plan(read_source(path)), overrides)
    try:
        return _plan_of(document, tuple(overrides))
    except PlanError as fault:
        length = len(document.source.text)
        raise with_nearest_meshes(fault, _axes_of(document), length, lambda sets: _is_plan(document, sets)) from None


def vary_plan(plan: Plan, settings: Sequence[str]) -> Plan | None:
    """A plan with further overrides; None where they make no valid plan."""
    try:
        overrides = (*plan.overrides, *settings)
        return _plan_of(apply_overrides(parse_plan(plan.source), overrides), overrides)
    except PlanError:
        return None


def _is_plan(document: Document, overrides: Sequence[str]) -> bool:
    try:
        return bool(_plan_of(apply_overrides(document, overrides), ()))
    except PlanError:
        return False


def _axes_of(document: Document) -> tuple[Axis, ...]:
    """The axes that a plan asks for, none if they are no axes."""
    report = Report()
    reading = Reading(bind(document.bindings, report), report)
    block = next((block for block in document.blocks if block.kind.text == "mesh"), None)
    return (read_axes(block, reading) if block else None) or ()


def _plan_of(document: Document, overrides: tuple[str, ...]) -> Plan:
    plan = _read_blocks(document, overrides)
    report = Report()
    for check in CHECKS:
        check(plan, report)
    return replace(plan, warnings=report.close())


def _read_blocks(document: Document, overrides: tuple[str, ...]) -> Plan:
    report = Report()
    reading = Reading(bind(document.bindings, report), report)
    blocks = find_blocks(document, report)
    model = _read_model(blocks.get("model"), reading)
    mesh = read_mesh(blocks.get("mesh"), reading)
    shard, patterns = read_shard(blocks.get("shard"), reading)
    schedule = read_schedule(blocks.get("schedule"), reading)
    train = read_train(blocks.get("train"), reading)
    communicate = read_communicate(blocks.get("communicate"), reading)
    hardware = read_hardware(blocks.get("hardware"), reading)
    require = read_requirements(blocks.get("require"), reading)
    if model and mesh:
        check_names(blocks.get("shard"), model, mesh, reading)
    report.close()
    assert model and mesh and schedule and train, "what cannot be read is reported"
    layers = next((line for line in shard if "layers" in line.dims), None)
    return Plan(
        name=PurePath(document.source.path).stem,
        source=document.source,
        model=model,
        mesh=mesh,
        pipeline_axis=layers.axes[0] if layers and layers.axes else None,
        shard=shard,
        patterns=patterns,
        schedule=schedule,
        train=train,
        communicate=communicate,
        hardware=hardware,
        require=require,
        warnings=(),
        overrides=overrides,
        places=reading.places | {kind: block.place for kind, block in blocks.items()},
    )


def _read_model(block: Block | None, reading: Reading) -> Decoder | Imported | None:
    if block is None:
        return None
    return read_import(block, reading) if block.python else read_model(block, reading)
