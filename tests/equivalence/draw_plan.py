"""Draws plans of described models: any model, mesh, fold, assignment of dims to axes and schedule that the DSL takes.

What is drawn is the text of a plan, so that a failure prints one that can be run as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from hypothesis import strategies as st

from moec.dsl.mesh import Axis, Mesh, MeshFault
from moec.dsl.tilings import fold_sizes

WORLD = 48
"""The most ranks of a drawn mesh."""

BESIDE: tuple[tuple[str, ...], ...] = (
    ("vocab", "hidden"),
    ("heads", "hidden"),
    ("kv_heads", "hidden"),
    ("ffn", "hidden"),
    ("choices", "hidden"),
    ("experts", "expert_ffn", "hidden"),
    ("batch", "seq"),
)
"""Dims of one tensor: no axis may split two of them."""

Draw = Callable[[st.SearchStrategy], object]


@dataclass(frozen=True)
class Shape:
    """The mesh of a plan, and the dims that go over its axes."""

    mesh: Mesh
    lines: Mapping[str, tuple[str, ...]]  # dim -> axes; none: whole

    def parts(self, dim: str) -> int:
        return self.mesh.size(atom for axis in self.lines.get(dim, ()) for atom in self.mesh.atoms_of(axis))


@st.composite
def plans(draw: Draw, world: int = WORLD) -> str:
    """The text of a plan of at most `world` ranks that the DSL takes."""
    pipeline = draw(st.sampled_from([0, 0, 0, 1, 2, 2, 3]))
    mesh = _mesh(draw, pipeline, world)
    sparse = draw(st.integers(0, 3)) < 3
    lines = _lines(draw, mesh, sparse)
    unused = {axis.name for axis in mesh.axes if axis.over and all(axis.name not in axes for axes in lines.values())}
    mesh = Mesh(tuple(axis for axis in mesh.axes if axis.name not in unused))
    shape = Shape(mesh, lines)
    stages = max(pipeline, 1)
    layers = draw(st.integers(stages, stages + 3))
    model = _model(draw, shape, layers, sparse)
    if pipeline:
        lines = {"layers": ("pp",), **lines}
    axes = [f"{axis.name} = {axis.size}" + (f" over {', '.join(axis.over)}" if axis.over else "") for axis in mesh.axes]
    shard = [f"  {dim} over {', '.join(axes)}" if axes else f"  {dim} whole" for dim, axes in lines.items()]
    text = ["model drawn {", *model, "}", f"mesh {{ {'   '.join(axes)} }}"]
    if shard:
        text += ["shard {", *shard, "}"]
    return "\n".join([*text, *_training(draw, shape, stages)]) + "\n"


def _mesh(draw: Draw, pipeline: int, world: int) -> Mesh:
    """Axes of pairwise different sizes in any order, those of one rank apart, and perhaps a fold."""
    names = draw(
        st.lists(
            st.sampled_from(["dp", "ep", "tp", "x", "rows"]), unique=True, min_size=draw(st.integers(1, 2)), max_size=3
        )
    )
    axes, room, left = [], world // max(pipeline, 1), [2, 3, 4, 5]
    if pipeline in left:
        left.remove(pipeline)
    for name in names:
        fitting = [size for size in left if size <= room]
        size = draw(st.sampled_from(fitting)) if fitting and draw(st.integers(0, 7)) < 7 else 1
        left = [other for other in left if other != size]
        room //= size
        axes.append(Axis(name, size))
    fold = _fold(draw, axes)
    if pipeline:
        axes.insert(draw(st.integers(0, len(axes))), Axis("pp", pipeline))
    try:
        return Mesh((*axes, *fold))
    except MeshFault:
        return Mesh(tuple(axes))


def _fold(draw: Draw, axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """An axis that takes the fastest ranks of some others, in one plan of three."""
    if not axes or draw(st.integers(0, 2)):
        return ()
    over = draw(st.lists(st.sampled_from(axes), unique=True, min_size=1, max_size=2))
    sizes = fold_sizes(tuple(axis.size for axis in axes if axis in over))
    if not sizes:
        return ()
    return (Axis("fold", draw(st.sampled_from(sizes)), tuple(axis.name for axis in axes if axis in over)),)


def _lines(draw: Draw, mesh: Mesh, sparse: bool) -> dict[str, tuple[str, ...]]:
    """Axes for every dim; none for two dims of one tensor, and each for some dim."""
    names = [axis.name for axis in mesh.axes if axis.name != "pp"]
    dims = ["batch", "seq", "heads", "kv_heads", "ffn", "vocab"] + ["experts", "expert_ffn", "choices"] * sparse
    lines: dict[str, tuple[str, ...]] = {}
    taken: dict[str, set[str]] = {}
    rare = {"seq": 2, "hidden": 4, "choices": 4}
    for dim in draw(st.permutations([*dims, "hidden"])):
        beside = {other for group in BESIDE if dim in group for other in group}
        used = {atom for other in beside for atom in taken.get(other, ())}
        free = [name for name in names if not set(mesh.atoms_of(name)) & used]
        chosen: list[str] = []
        if free and draw(st.integers(0, rare.get(dim, 1))) == 0:
            for name in draw(st.lists(st.sampled_from(free), unique=True, min_size=1, max_size=2)):
                if not {atom for c in chosen for atom in mesh.atoms_of(c)} & set(mesh.atoms_of(name)):
                    chosen.append(name)
        if chosen or (dim in ("kv_heads", "expert_ffn") and draw(st.booleans())):
            lines[dim] = tuple(chosen)
        taken[dim] = {atom for name in chosen for atom in mesh.atoms_of(name)}
    idle = [name for name in names if _idle(name, mesh, lines)]
    if idle:
        free = {atom for name in idle for atom in mesh.atoms_of(name)}
        kept = (name for name in lines.get("batch", ()) if not free & set(mesh.atoms_of(name)))
        lines["batch"] = (*kept, *idle)
    return lines


def _idle(name: str, mesh: Mesh, lines: Mapping[str, tuple[str, ...]]) -> bool:
    used = {atom for axes in lines.values() for axis in axes for atom in mesh.atoms_of(axis)}
    return mesh.axis(name).size > 1 and not mesh.axis(name).over and not set(mesh.atoms_of(name)) <= used


def _model(draw: Draw, shape: Shape, layers: int, sparse: bool) -> list[str]:
    parts = shape.parts
    kv_parts = parts("kv_heads") if "kv_heads" in shape.lines else parts("heads")
    kv_heads = kv_parts * draw(st.integers(1, 2))
    heads = kv_heads * draw(st.integers(1, 3))
    while heads % parts("heads"):
        heads += kv_heads
    head_dim = 2 * draw(st.integers(1, 3))
    hidden = parts("hidden") * draw(st.integers(4, 9))
    seq = parts("seq") * draw(st.integers(2, 5))
    vocab = draw(st.integers(max(5, parts("vocab")), 40))
    every = draw(st.integers(1, layers)) if sparse else 1
    lines = [
        f"  layers = {layers}   hidden = {hidden}   heads = {heads}   kv_heads = {kv_heads}   head_dim = {head_dim}",
        f"  vocab = {vocab}   seq = {seq}   tied = {_flag(draw)}   gated = {_flag(draw)}",
    ]
    if not sparse or every > 1:
        lines.append(f"  ffn = {parts('ffn') * draw(st.integers(1, 6))}")
    if sparse:
        lines.append(f"  experts {{ {_experts(draw, shape, every)} }}")
    return lines


def _experts(draw: Draw, shape: Shape, every: int) -> str:
    count = max(shape.parts("experts"), 1) * draw(st.integers(1, 3))
    while count % shape.parts("choices"):
        count += shape.parts("experts")
    top_k = draw(st.integers(1, min(3, count)))
    softmax = draw(st.sampled_from(["before", "after"])) if top_k > 1 else "before"
    hidden = prod((shape.parts("expert_ffn") if "expert_ffn" in shape.lines else shape.parts("ffn"),)) * draw(
        st.integers(1, 5)
    )
    capacity = draw(st.sampled_from(["none", "1", "1.25", "0.5", "2"]))
    route = draw(st.sampled_from(["per_sequence", "per_microbatch"]))
    return (
        f"count = {count}   hidden = {hidden}   top_k = {top_k}   capacity = {capacity}   route = {route}   "
        f"softmax = {softmax}   gated = {_flag(draw)}   every = {every}"
    )


def _flag(draw: Draw) -> str:
    return "true" if draw(st.booleans()) else "false"


def _training(draw: Draw, shape: Shape, stages: int) -> list[str]:
    accumulate = draw(st.sampled_from([1, 2, stages, stages + 2]))
    batch = accumulate * shape.parts("batch") * draw(st.integers(1, 2))
    kind = draw(st.sampled_from(["gpipe", "1f1b"]))
    clip = draw(st.sampled_from(["none", "0.5"]))
    decay = draw(st.sampled_from(["0", "0.1"]))
    return [
        f"schedule {kind} {{ batch = {batch}   accumulate = {accumulate} }}",
        f"train {{ lr = 1e-2   clip = {clip}   weight_decay = {decay} }}",
    ]
