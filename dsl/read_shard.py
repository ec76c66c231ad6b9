"""Reads the block `shard`: which dim goes over which axes."""

from moec.dsl.mesh import Mesh
from moec.dsl.plan import Decoder, Imported, Pattern, Shard
from moec.dsl.read_import import read_pattern
from moec.dsl.reading import Reading
from moec.dsl.schema import DIMS
from moec.dsl.suggest import did_you_mean, listed
from moec.dsl.syntax import Block, Line, Naming, Word


def read_shard(block: Block | None, reading: Reading) -> tuple[tuple[Shard, ...], tuple[Pattern, ...]]:
    """The lines and the weights that are named, as written: which dims and axes there are is not asked yet."""
    if block is None:
        return (), ()
    reading.only(block, (Line, Naming), "heads over tp")
    written = [item for item in block.items if isinstance(item, Line)]
    lines: list[Shard] = []
    for line in written:
        fresh = [dim for dim in line.dims if _note_once(dim, reading)]
        lines.append(Shard(tuple(dim.text for dim in fresh), tuple(axis.text for axis in line.axes), line.place))
    patterns = tuple(read_pattern(item, reading) for item in block.items if isinstance(item, Naming))
    return tuple(lines), patterns


def _note_once(dim: Word, reading: Reading) -> bool:
    path = f"shard.{dim.text}"
    before = reading.places.setdefault(path, dim.place)
    if before is dim.place:
        return True
    labels = dim.place.label("placed again here"), before.note("first placed here")
    help = [f"several axes stand in one line: `{dim.text} over x, y`"]
    reading.report.error("E206", f"`{dim.text}` is placed twice", *labels, help=help)
    return False


def check_names(block: Block | None, model: Decoder | Imported, mesh: Mesh, reading: Reading) -> None:
    """Report dims that the model does not have, axes that the mesh does not have, and axes that cut a dim twice."""
    if block is None:
        return
    known = dims_of(model)
    for item in block.items:
        match item:
            case Line(dims=dims, axes=axes):
                for dim in dims:
                    if dim.text not in known:
                        _report_dim(dim, known, mesh, reading)
                _check_axes(axes, mesh, reading)
            case Naming(dims=dims) if isinstance(model, Decoder):
                for dim in dims.items:
                    if isinstance(dim, Word) and dim.text not in (*known, "_"):
                        _report_dim(dim, known, mesh, reading)


def dims_of(model: Decoder | Imported) -> tuple[str, ...]:
    """The dims that a line of `shard` can place."""
    if isinstance(model, Decoder):
        sparse = ("experts", "expert_ffn", "choices")
        return tuple(dim for dim in DIMS if model.experts or dim not in sparse)
    named = [dim for pattern in model.weights for dim in pattern.dims if dim]
    sized = [dim for given in model.inputs for dim in given.dims if isinstance(dim, str)]
    return tuple(dict.fromkeys(("batch", "layers", *sized, *named)))


def _report_dim(dim: Word, known: tuple[str, ...], mesh: Mesh, reading: Reading) -> None:
    axes = [axis.name for axis in mesh.axes]
    if dim.text in axes:
        help = ["a line names the dim first: `heads over tp`"]
    elif dim.text in DIMS:
        help = [f"dims of this model: {listed(known)}"]
    else:
        help = did_you_mean(dim.text, known, "dims of this model")
    headline = f"the model has no dim `{dim.text}`"
    reading.report.error("E205", headline, dim.place.label("no such dim"), help=help)


def _check_axes(axes: tuple[Word, ...], mesh: Mesh, reading: Reading) -> None:
    known = [axis.name for axis in mesh.axes]
    taken: dict[str, Word] = {}
    for word in axes:
        if word.text not in known:
            help = did_you_mean(word.text, known, "axes")
            headline = f"the mesh has no axis `{word.text}`"
            reading.report.error("E202", headline, word.place.label("no such axis"), help=help)
            continue
        twice = next((taken[atom] for atom in mesh.atoms_of(word.text) if atom in taken), None)
        if twice:
            same = (
                f"`{word.text}` twice"
                if twice.text == word.text
                else f"ranks that `{twice.text}` and `{word.text}` share"
            )
            labels = word.place.label("here again"), twice.place.note("already split over these")
            reading.report.error("E208", f"a dim goes over {same}", *labels, help=[f"take `{word.text}` out"])
        taken |= dict.fromkeys(mesh.atoms_of(word.text), word)
