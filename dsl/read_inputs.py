"""Reads the block `inputs` of an imported model: kind, dims and range of every input."""

from collections.abc import Mapping
from fractions import Fraction

from moec.dsl.evaluate import Names
from moec.dsl.plan import Argument, Input
from moec.dsl.reading import Reading
from moec.dsl.report import Report
from moec.dsl.schema import Whole
from moec.dsl.settings import once, whole
from moec.dsl.source import Place
from moec.dsl.suggest import did_you_mean
from moec.dsl.syntax import Block, Expression, Setting, Tensor, Word
from moec.dsl.units import Quantity

KINDS = ("float", "int")
MOST_DIMS = 16


def read_inputs(
    model: Block,
    block: Block | None,
    arguments: Mapping[str, Argument],
    small: Mapping[str, Argument],
    reading: Reading,
) -> tuple[tuple[Input, ...], tuple[Input, ...]]:
    """The inputs under the full and under the small arguments."""
    settings = once((item for item in block.items if isinstance(item, Setting)), reading.report) if block else []
    if not settings:
        help = ["write `inputs { image = float[batch, 3, 32, 32] }`"]
        place = (block or model).place
        reading.report.error("E111", "an imported model lacks its inputs", place.label("says none"), help=help)
    tensors = [(setting, tensor) for setting in settings if (tensor := _tensor(setting, reading))]
    full = _names(arguments, reading.names)
    inputs = tuple(_input(setting, tensor, full, arguments, reading.report) for setting, tensor in tensors)
    quiet = Report()  # what fails for the full arguments is told; a small one that fails is told below
    reduced = _names({**arguments, **small}, reading.names)
    small_inputs = tuple(_input(setting, tensor, reduced, arguments, quiet) for setting, tensor in tensors)
    if quiet.errors and not reading.report.errors:
        reading.report.add(quiet.taken())
    return inputs, small_inputs


def _tensor(setting: Setting, reading: Reading) -> Tensor | None:
    """The form of an input, with what is wrong about it reported."""
    name, value = setting.name, setting.value
    reading.places[f"model.inputs.{name.text}"] = setting.place
    if not reading.identifier(name, "an input"):
        return None
    if not isinstance(value, Tensor):
        help = [f"write `{name.text} = float[batch, 3, 32, 32]` or `{name.text} = int[batch] < 10`"]
        reading.report.error(
            "E306", f"the input `{name.text}` has no dims", value.place.label("not a tensor"), help=help
        )
        return None
    if value.kind.text not in KINDS:
        help = did_you_mean(value.kind.text, KINDS, "kinds")
        headline = f"an input is `float` or `int`, not `{value.kind.text}`"
        reading.report.error("E306", headline, value.kind.place.label("unknown kind"), help=help)
        return None
    if value.kind.text == "int" and value.below is None:
        help = [f"say below what it is: `{value.place.text} < 10`"]
        reading.report.error("E306", f"the input `{name.text}` has no range", value.place.label("integers"), help=help)
    if value.kind.text == "float" and value.below is not None:
        label = value.below.place.label("only integers are drawn below something")
        reading.report.error("E306", f"the input `{name.text}` is no integer", label, help=["take the range out"])
    if len(value.dims.items) > MOST_DIMS:
        label = value.dims.place.label(f"{len(value.dims.items):,} dims")
        reading.report.error("E110", f"a tensor has at most {MOST_DIMS} dims", label, help=["leave some out"])
        return None
    _check_batch(name.text, value, reading.report)
    return value


def _check_batch(name: str, tensor: Tensor, report: Report) -> None:
    at = [n for n, dim in enumerate(tensor.dims.items) if isinstance(dim, Word) and dim.text == "batch"]
    if at != [0]:
        why = (
            "`batch` is not among them"
            if not at
            else "`batch` stands elsewhere too"
            if 0 in at
            else "`batch` is not first"
        )
        help = [f"write `{name} = {tensor.kind.text}[batch, ...]`"]
        report.error(
            "E306", f"the first dim of the input `{name}` is not `batch`", tensor.dims.place.label(why), help=help
        )


def _input(setting: Setting, tensor: Tensor, names: Names, arguments: Mapping[str, Argument], report: Report) -> Input:
    dims = tuple(_size(dim, names, arguments, report) for dim in tensor.dims.items)
    below = _size(tensor.below, names, arguments, report) if tensor.below else None
    return Input(setting.name.text, tensor.kind.text, dims, below, setting.place)


def _size(dim: Expression, names: Names, arguments: Mapping[str, Argument], report: Report) -> str | int:
    """`batch` or the name of an argument as it stands, else a size."""
    if isinstance(dim, Word) and dim.text == "batch":
        return "batch"
    if isinstance(dim, Word) and dim.text in arguments and whole(dim, Whole(), dim.text, names, report):
        return dim.text
    return whole(dim, Whole(), "the size of a dim", names, report) or 1


def _names(arguments: Mapping[str, Argument], names: Names) -> Names:
    """The names of the plan and, before them, the arguments that are whole numbers."""
    sizes = {
        name: Quantity(Fraction(value))
        for name, value in arguments.items()
        if isinstance(value, int) and not isinstance(value, bool)
    }
    places: dict[str, Place] = {name: place for name, place in names.places.items() if name not in sizes}
    return Names({**names.values, **sizes}, places)
