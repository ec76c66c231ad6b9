"""Checks that no axis splits two dims of one weight, and that none splits nothing."""

from itertools import combinations

from moec.dsl.mesh import Axis
from moec.dsl.plan import Decoder, Pattern, Plan
from moec.dsl.report import Report
from moec.dsl.schema import WEIGHTS


def check_conflicts(plan: Plan, report: Report) -> None:
    """Report axes of which too much is asked, and axes of which nothing is."""
    told: set[tuple[str, str]] = set()
    named = _named_dims(plan)
    split = {dim: _split(plan, dim) for dim in {dim for _, dims in named for dim in dims}}
    for weight, dims in named:
        for first, second in combinations([dim for dim in dims if split[dim]], 2):
            if split[first] & split[second] and (first, second) not in told:
                told.add((first, second))
                _report_conflict(plan, weight, first, second, report)
    for axis in plan.mesh.axes:
        _check_used(plan, axis, report)


def _named_dims(plan: Plan) -> list[tuple[str, tuple[str, ...]]]:
    """What has named dims, and which: the weights, of an imported model its inputs too."""
    patterns = [(f"`{pattern.pattern}`", _names(pattern)) for pattern in plan.patterns]
    if isinstance(plan.model, Decoder):
        return [*WEIGHTS.items(), *patterns]
    inputs = [
        (f"the input `{given.name}`", tuple(dim for dim in given.dims if isinstance(dim, str)))
        for given in plan.model.inputs
    ]
    return [*inputs, *((f"`{pattern.pattern}`", _names(pattern)) for pattern in plan.model.weights), *patterns]


def _names(pattern: Pattern) -> tuple[str, ...]:
    return tuple(dim for dim in pattern.dims if dim)


def _split(plan: Plan, dim: str) -> frozenset[str]:
    return frozenset(atom for atom in plan.axes_of(dim) if _real(plan, atom))


def _real(plan: Plan, atom: str) -> bool:
    return plan.mesh.size((atom,)) > 1


def _report_conflict(plan: Plan, weight: str, first: str, second: str, report: Report) -> None:
    line = plan.line_of(second)
    assert line, "a dim that is split has a line"
    axis = next(axis for axis in line.axes if set(plan.mesh.atoms_of(axis)) & set(plan.axes_of(first)))
    headline = f"mesh axis `{axis}` splits two dims of {weight}: `{first}` and `{second}`"
    label = plan.dim_place(second).label(f"`{second}` goes over `{axis}`")
    note = plan.dim_place(first).note(f"`{first}` does too")
    report.error("E207", headline, label, note, help=[f"leave one of them whole: `{second} whole`"])


def _check_used(plan: Plan, axis: Axis, report: Report) -> None:
    """Ranks that split nothing would all do the same work."""
    over = {name for line in plan.shard for name in line.axes}
    used = {atom for name in over for atom in plan.mesh.atoms_of(name)}
    idle = [atom for atom in plan.mesh.atoms_of(axis.name) if atom not in used and _real(plan, atom)]
    if axis.size == 1 or axis.name in over or not (idle or axis.over):
        return
    folds = [fold.name for fold in plan.mesh.axes if axis.name in fold.over and fold.name in over]
    place = plan.places[f"mesh.{axis.name}"]
    if folds and len(idle) < len(plan.mesh.atoms_of(axis.name)):
        rest = plan.mesh.size(idle)
        label = place.label(f"only the part of it in `{folds[0]}` is used, and {rest} ranks do the same work")
    else:
        label = place.label("no line of `shard` names it")
    help = [f"give it a dim, such as `batch over {axis.name}`, or write `{axis.name} = 1`"]
    if axis.over:
        help = [f"give it a dim, such as `experts over {axis.name}`, or take it out"]
    report.error("E204", f"mesh axis `{axis.name}` splits nothing", label, help=help)
