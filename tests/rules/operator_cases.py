"""For every operator with a rule, how to draw one call of it: tensors and arguments as torch.export records them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import torch
from hypothesis import strategies as st
from torch import Tensor

from moec.compiler.rules import RULES
from moec.compiler.rules.elementwise import CASTS, LINEAR, NONLINEAR
from moec.runtime import routing

Draw = Callable[[st.SearchStrategy], object]
SIZES = (2, 3, 4, 6)


@dataclass(frozen=True)
class Case:
    """One call. Tensors stand in the arguments, perhaps in lists; `shaped` ops have their output's shape for a size."""

    target: str
    args: tuple[object, ...]
    kwargs: Mapping[str, object] = field(default_factory=dict)

    @property
    def tensors(self) -> list[Tensor]:
        return [x for arg in self.args for x in (arg if isinstance(arg, list) else [arg]) if isinstance(x, Tensor)]

    def run(self, args: Sequence[object], kwargs: Mapping[str, object], shape: tuple[int, ...] | None) -> object:
        """Call the operator; a size among its arguments is that of the output, where one is given."""
        name = self.target.removeprefix("aten.")
        if shape is not None and name in _SHAPED:
            x = args[0]
            assert isinstance(x, Tensor)
            return x.expand(shape) if name == "expand" else x.reshape(shape)
        if self.target == "moec.collect":
            rows, prob, expert, place, *rest = args
            assert isinstance(rows, Tensor) and isinstance(prob, Tensor) and isinstance(place, Tensor)
            args = [rows, prob * (place < rows.shape[2]), expert, place, *rest]  # as `route` leaves them
        if self.target.startswith("moec."):
            return vars(routing)[self.target.removeprefix("moec.")](*args, **kwargs)
        packet, _, overload = name.partition(".")
        if name == "copy":
            first, second = args
            assert isinstance(first, Tensor) and isinstance(second, Tensor)
            return second.expand(first.shape)  # which has a derivative
        return getattr(getattr(torch.ops.aten, packet), overload or "default")(*args, **kwargs)


_SHAPED = (
    "squeeze",
    "squeeze.dim",
    "squeeze.dims",
    "view",
    "reshape",
    "_unsafe_view",
    "flatten.using_ints",
    "unflatten.int",
    "expand",
)

MakeCase = Callable[[Draw], Case]


# ---- Parts of a case.


def sizes(draw: Draw, rank: int) -> list[int]:
    return [_one(draw, SIZES) for _ in range(rank)]


def _one(draw: Draw, choices: Sequence[int]) -> int:
    chosen = draw(st.sampled_from(choices))
    assert isinstance(chosen, int)
    return chosen


def number(draw: Draw, low: int, high: int) -> int:
    return _one(draw, range(low, high + 1))


def flag(draw: Draw) -> bool:
    return bool(number(draw, 0, 1))


def floats(*shape: int) -> Tensor:
    """Between 0.1 and 0.9, where every function is smooth and none of two are equal."""
    return torch.rand(shape, dtype=torch.float64) * 0.8 + 0.1


def ints(below: int, *shape: int) -> Tensor:
    return torch.randint(below, shape)


def bools(*shape: int) -> Tensor:
    return torch.rand(shape) < 0.5


def broadcast_with(draw: Draw, shape: Sequence[int]) -> list[int]:
    """A shape that is repeated to another: fewer dims, or ones."""
    return [size if number(draw, 0, 2) else 1 for size in shape[number(draw, 0, len(shape)) :]]


def dim_of(draw: Draw, rank: int) -> int:
    return number(draw, -rank, rank - 1)


# ---- Operators on single elements.


def _elementwise(target: str) -> MakeCase:
    """By the operator's schema: tensors are repeated to one shape, numbers are 0.5."""
    name, _, overload = target.removeprefix("aten.").partition(".")
    schema = getattr(getattr(torch.ops.aten, name), overload or "default")._schema
    kinds = [str(a.type) for a in schema.arguments if not a.kwarg_only and (a.default_value is None)]
    whole_numbers = name.startswith("bitwise") or (name.startswith("logical") and overload == "")

    def make(draw: Draw) -> Case:
        shape = sizes(draw, number(draw, 1, 3))
        args: list[object] = []
        for place, kind in enumerate(kinds):
            mask = (name == "where" and place == 0) or (name == "masked_fill" and place == 1)
            if kind != "Tensor":
                args.append(0.5)
                continue
            own = shape if place == 0 else broadcast_with(draw, shape)
            own = [] if name == "masked_fill" and place == 2 else own
            args.append(bools(*own) if mask or whole_numbers else floats(*own))
        return Case(target, tuple(args))

    return make


def _cast(target: str) -> MakeCase:
    def make(draw: Draw) -> Case:
        dtype = draw(st.sampled_from([torch.float64, torch.int64]))
        x = floats(*sizes(draw, number(draw, 1, 3))) * 9
        return Case(
            target,
            (x, dtype) if target == "aten.to.dtype" else (x,),
            {"dtype": dtype} if target[5:] != "to.dtype" else {},
        )

    return make


def _with_number(target: str) -> MakeCase:
    plain = _elementwise(target)

    def make(draw: Draw) -> Case:
        if flag(draw):
            return plain(draw)
        return Case(target, (floats(*sizes(draw, number(draw, 1, 3))), 3.0))

    return make


def prelu(draw: Draw) -> Case:
    shape = sizes(draw, number(draw, 1, 3))
    slopes = shape[1:2] if len(shape) > 1 and flag(draw) else [1]
    return Case("aten.prelu", (floats(*shape), floats(*slopes)))


def clamp(draw: Draw) -> Case:
    return Case("aten.clamp", (floats(*sizes(draw, 2)), 0.3, 0.6))


def broadcast_tensors(draw: Draw) -> Case:
    shape = sizes(draw, 3)
    return Case("aten.broadcast_tensors", ([floats(*shape), floats(*broadcast_with(draw, shape))],))


# ---- Products.


def linear(draw: Draw) -> Case:
    k, n = sizes(draw, 2)
    bias = (floats(n),) if flag(draw) else ()
    return Case("aten.linear", (floats(*sizes(draw, number(draw, 0, 3)), k), floats(n, k), *bias))


def product(target: str, *shapes: str) -> MakeCase:
    """Tensors whose dims are letters."""

    def make(draw: Draw) -> Case:
        size = {letter: _one(draw, SIZES) for shape in shapes for letter in shape}
        return Case(target, tuple(floats(*(size[letter] for letter in shape)) for shape in shapes))

    return make


def matmul(draw: Draw) -> Case:
    m, k, n = sizes(draw, 3)
    batch = sizes(draw, number(draw, 0, 2))
    left, right = draw(
        st.sampled_from(
            [
                ([k], [k]),
                ([*batch, m, k], [k]),
                ([k], [*batch, k, n]),
                ([*batch, m, k], [k, n]),
                ([*batch, m, k], [*broadcast_with(draw, batch), k, n]),
                ([*broadcast_with(draw, batch), m, k], [*batch, k, n]),
            ]
        )
    )
    return Case("aten.matmul", (floats(*left), floats(*right)))


def _plus_product(target: str, batch: bool) -> MakeCase:
    def make(draw: Draw) -> Case:
        b, m, k, n = sizes(draw, 4)
        more = [b] if batch else []
        added = broadcast_with(draw, [*more, m, n])
        return Case(target, (floats(*added), floats(*more, m, k), floats(*more, k, n)))

    return make


def einsum(draw: Draw) -> Case:
    equation = draw(
        st.sampled_from(
            ["bij,jk->bik", "bre,brw->ebrw", "ebri,eiw->ebrw", "...i,ij->...j", "i,j->ij", "ij->i", "bhqd,bhkd->bhqk",
             "ab,bc,cd->ad", "ii->i", "ij->ji"]
        )
    )  # fmt: skip
    assert isinstance(equation, str)
    size = {letter: _one(draw, SIZES) for letter in equation if letter.isalpha()}
    dims = [[size[c] for c in part.removeprefix("...")] for part in equation.partition("->")[0].split(",")]
    dims[0] = [*(sizes(draw, 2) if "..." in equation else []), *dims[0]]
    return Case("aten.einsum", (equation, [floats(*shape) for shape in dims]))


def _convolution(rank: int) -> MakeCase:
    def make(draw: Draw) -> Case:
        groups = number(draw, 1, 2)
        b, c, o = _one(draw, SIZES), groups * number(draw, 1, 3), groups * number(draw, 1, 3)
        bias = floats(o) if flag(draw) else None
        x, weight = floats(b, c, *[4] * rank), floats(o, c // groups, *[3] * rank)
        return Case(f"aten.conv{rank}d", (x, weight, bias, [1] * rank, [1] * rank, [1] * rank, groups))

    return make


def attention(draw: Draw) -> Case:
    t, d, *outer = sizes(draw, number(draw, 2, 4))
    q, k, v = (floats(*outer, t, d) for _ in range(3))
    mask = bools(t, t) | torch.eye(t, dtype=torch.bool) if flag(draw) else None
    return Case("aten.scaled_dot_product_attention", (q, k, v, mask, 0.0, mask is None and flag(draw)))


def embedding(draw: Draw) -> Case:
    v, d = sizes(draw, 2)
    padding = (number(draw, 0, v - 1),) if flag(draw) else ()
    return Case("aten.embedding", (floats(v, d), ints(v, *sizes(draw, number(draw, 0, 2))), *padding))


# ---- Shapes.


def _view(target: str) -> MakeCase:
    """Dims that are joined and parted, with ones among them."""

    def make(draw: Draw) -> Case:
        groups = [sizes(draw, number(draw, 1, 3)) for _ in range(number(draw, 1, 3))]
        left = [size for group in groups for size in (group if flag(draw) else [reduce(int.__mul__, group)])]
        right = [size for group in groups for size in (group if flag(draw) else [reduce(int.__mul__, group)])]
        for shape in (left, right):
            if not number(draw, 0, 3):
                shape.insert(number(draw, 0, len(shape)), 1)
        return Case(target, (floats(*left), right))

    return make


def flatten(draw: Draw) -> Case:
    rank = number(draw, 1, 4)
    start = number(draw, 0, rank - 1)
    return Case("aten.flatten.using_ints", (floats(*sizes(draw, rank)), start, number(draw, start, rank - 1)))


def unflatten(draw: Draw) -> Case:
    inner = sizes(draw, number(draw, 1, 3))
    shape = sizes(draw, number(draw, 1, 3))
    dim = number(draw, 0, len(shape) - 1)
    shape[dim] = reduce(int.__mul__, inner)
    return Case("aten.unflatten.int", (floats(*shape), dim, inner))


def transpose(draw: Draw) -> Case:
    rank = number(draw, 2, 4)
    return Case("aten.transpose.int", (floats(*sizes(draw, rank)), dim_of(draw, rank), dim_of(draw, rank)))


def permute(draw: Draw) -> Case:
    order = draw(st.permutations(range(number(draw, 1, 4))))
    return Case("aten.permute", (floats(*sizes(draw, len(order))), list(order)))


def on_matrix(target: str, *more: object) -> MakeCase:
    return lambda draw: Case(target, (floats(*sizes(draw, 2)), *more))


def split_pieces(target: str) -> MakeCase:
    def make(draw: Draw) -> Case:
        shape = sizes(draw, number(draw, 1, 3))
        dim = number(draw, 0, len(shape) - 1)
        how = [1, shape[dim] - 1] if target == "aten.split_with_sizes" else number(draw, 1, 3)
        return Case(target, (floats(*shape), how, dim))

    return make


def slice_(draw: Draw) -> Case:
    shape = sizes(draw, number(draw, 1, 3))
    dim = number(draw, 0, len(shape) - 1)
    return Case(
        "aten.slice.Tensor", (floats(*shape), dim, number(draw, 0, shape[dim] - 1), shape[dim], number(draw, 1, 2))
    )


def narrow(draw: Draw) -> Case:
    shape = sizes(draw, number(draw, 1, 3))
    dim = number(draw, 0, len(shape) - 1)
    return Case("aten.narrow", (floats(*shape), dim, 0, number(draw, 1, shape[dim])))


def select(draw: Draw) -> Case:
    shape = sizes(draw, number(draw, 1, 3))
    dim = dim_of(draw, len(shape))
    return Case("aten.select.int", (floats(*shape), dim, number(draw, -1, shape[dim] - 1)))


def at_dim(target: str, *before: object, more: int = 0) -> MakeCase:
    """An operator with a dim after its tensor; `more` dims than the tensor has can be meant."""

    def make(draw: Draw) -> Case:
        shape = sizes(draw, number(draw, 1, 3))
        return Case(target, (floats(*shape), *before, dim_of(draw, len(shape) + more)))

    return make


def padded(target: str, *mode: str) -> MakeCase:
    """Some of the last dims, with zeros or another number."""

    def make(draw: Draw) -> Case:
        shape = sizes(draw, number(draw, 1, 3))
        amounts = [number(draw, 0, 2) for _ in range(2 * number(draw, 1, len(shape)))]
        return Case(target, (floats(*shape), amounts, *mode, 1.5 if flag(draw) else 0.0))

    return make


def stable_sort(draw: Draw) -> Case:
    return Case("aten.sort.stable", (floats(*sizes(draw, 2)),), {"stable": True, "dim": dim_of(draw, 2)})


def join(target: str) -> MakeCase:
    def make(draw: Draw) -> Case:
        shape = sizes(draw, number(draw, 1, 3))
        dim = dim_of(draw, len(shape) + (target == "aten.stack"))
        return Case(target, ([floats(*shape) for _ in range(number(draw, 1, 3))], dim))

    return make


def squeeze(target: str) -> MakeCase:
    def make(draw: Draw) -> Case:
        shape = [_one(draw, (1, 1, 2, 4)) for _ in range(number(draw, 1, 4))]
        dim = dim_of(draw, len(shape))
        return Case(target, (floats(*shape), *{"": [], ".dim": [dim], ".dims": [[dim]]}[target[12:]]))

    return make


def expand(draw: Draw) -> Case:
    shape = sizes(draw, number(draw, 1, 3))
    return Case("aten.expand", (floats(*broadcast_with(draw, shape)), shape))


def put_slice(draw: Draw) -> Case:
    shape = sizes(draw, number(draw, 1, 3))
    dim = number(draw, 0, len(shape) - 1)
    part = [size - 1 if n == dim else size for n, size in enumerate(shape)]
    return Case("aten.slice_scatter", (floats(*shape), floats(*part), dim, 0, shape[dim] - 1))


def put_row(draw: Draw) -> Case:
    shape = sizes(draw, number(draw, 1, 3))
    dim = number(draw, 0, len(shape) - 1)
    row = [size for n, size in enumerate(shape) if n != dim]
    return Case("aten.select_scatter", (floats(*shape), floats(*row), dim, number(draw, 0, shape[dim] - 1)))


# ---- Reductions, norms, lookups, losses.


def reduction(
    target: str, *before: object, whole_only: bool = False, listed: bool = False, keyword: bool = False
) -> MakeCase:
    """A reduction over no dim in particular, or over one, kept or not."""

    def make(draw: Draw) -> Case:
        x = floats(*sizes(draw, number(draw, 1, 3)))
        x = x > 0.5 if target.startswith(("aten.any", "aten.all")) else x
        if whole_only:
            return Case(target, (x, *before))
        dim, keep = dim_of(draw, x.dim()), flag(draw)
        dims = [dim] if listed else dim
        if keyword:
            return Case(target, (x, *before, dims), {"keepdim": keep, "correction": 0})
        return Case(target, (x, *before, dims, keep))

    return make


def variance(target: str) -> MakeCase:
    def make(draw: Draw) -> Case:
        x = floats(*sizes(draw, number(draw, 1, 3)))
        return Case(target, (x, [dim_of(draw, x.dim())], flag(draw), flag(draw)))

    return make


def last_dims_norm(target: str, bias: bool) -> MakeCase:
    def make(draw: Draw) -> Case:
        shape = sizes(draw, number(draw, 1, 4))
        last = shape[number(draw, 0, len(shape) - 1) :]
        weights = [floats(*last) for _ in range(1 + bias)] if flag(draw) else [None] * (1 + bias)
        return Case(target, (floats(*shape), last, *weights, 1e-5))

    return make


def group_norm(draw: Draw) -> Case:
    b, c, t = _one(draw, SIZES), 4, number(draw, 1, 3)
    return Case("aten.group_norm", (floats(b, c, t), 2, floats(c), floats(c), 1e-5))


def pooling(name: str, rank: int) -> MakeCase:
    def make(draw: Draw) -> Case:
        batch = sizes(draw, number(draw, 1, 2)) if rank < 3 else sizes(draw, 2)
        size = [1] * rank if name == "adaptive_avg_pool" else [2] * rank
        return Case(f"aten.{name}{rank}d", (floats(*batch, *[4] * rank), size))

    return make


def gather(draw: Draw) -> Case:
    shape = sizes(draw, number(draw, 1, 3))
    dim = number(draw, 0, len(shape) - 1)
    read = [number(draw, 1, 3) if n == dim else number(draw, 1, size) for n, size in enumerate(shape)]
    read = read if flag(draw) else [read[n] if n == dim else size for n, size in enumerate(shape)]
    return Case("aten.gather", (floats(*shape), dim, ints(shape[dim], *read)))


def index_select(draw: Draw) -> Case:
    shape = sizes(draw, number(draw, 1, 3))
    dim = number(draw, 0, len(shape) - 1)
    return Case("aten.index_select", (floats(*shape), dim, ints(shape[dim], _one(draw, SIZES))))


def one_hot(draw: Draw) -> Case:
    return Case("aten.one_hot", (ints(5, *sizes(draw, number(draw, 1, 2))), 5))


def cross_entropy(draw: Draw) -> Case:
    b, c = sizes(draw, 2)
    more = sizes(draw, number(draw, 0, 2))
    labels = ints(c, b, *more) if number(draw, 0, 2) else floats(b, c, *more)
    weight = floats(c) if flag(draw) else None
    smoothing = draw(st.sampled_from([0.0, 0.1]))
    return Case("aten.cross_entropy_loss", (floats(b, c, *more), labels, weight, number(draw, 0, 2), -100, smoothing))


def pairwise(target: str, weights: int = 0) -> MakeCase:
    """A loss without its mean, which is a sum and a division where it is placed."""

    def make(draw: Draw) -> Case:
        shape = sizes(draw, number(draw, 1, 3))
        more = [floats(*shape[place:]) if flag(draw) else None for place in range(weights)]
        return Case(target, (floats(*shape), floats(*shape), *more, draw(st.sampled_from([0, 2]))))

    return make


# ---- Routing.


def route(draw: Draw) -> Case:
    b, s, e = sizes(draw, 3)
    k = number(draw, 1, min(e, 3))
    return Case("moec.route", (floats(b, s, e), k, number(draw, 1, 3), "per_sequence", flag(draw) or k == 1))


def _routed(draw: Draw) -> tuple[Tensor, Tensor, Tensor, int, int]:
    """prob, expert, place of a routing, the number of experts and their capacity."""
    b, s, e = sizes(draw, 3)
    capacity = number(draw, 1, 3)
    return *routing.route(floats(b, s, e), number(draw, 1, min(e, 2)), capacity), e, capacity


def dispatch(draw: Draw) -> Case:
    _, expert, place, experts, capacity = _routed(draw)
    x = floats(*expert.shape[:2], _one(draw, SIZES))
    return Case("moec.dispatch", (x, expert, place, experts, capacity, "per_sequence"))


def collect(draw: Draw) -> Case:
    prob, expert, place, experts, capacity = _routed(draw)
    rows = floats(experts, expert.shape[0], capacity, _one(draw, SIZES))
    return Case("moec.collect", (rows, prob, expert, place, "per_sequence"))


CASES: dict[str, MakeCase] = {
    **{f"aten.{name}": _elementwise(f"aten.{name}") for name in (*NONLINEAR, *LINEAR)},
    **{f"aten.{name}": _cast(f"aten.{name}") for name in CASTS},
    **{f"aten.{name}.Tensor": _with_number(f"aten.{name}.Tensor") for name in ("add", "sub", "mul", "div")},
    "aten.clamp": clamp,
    "aten.prelu": prelu,
    "aten.broadcast_tensors": broadcast_tensors,
    "aten.linear": linear,
    "aten.mm": product("aten.mm", "mk", "kn"),
    "aten.bmm": product("aten.bmm", "bmk", "bkn"),
    "aten.mv": product("aten.mv", "mk", "k"),
    "aten.dot": product("aten.dot", "k", "k"),
    "aten.addmm": _plus_product("aten.addmm", batch=False),
    "aten.baddbmm": _plus_product("aten.baddbmm", batch=True),
    "aten.einsum": einsum,
    "aten.matmul": matmul,
    **{f"aten.conv{rank}d": _convolution(rank) for rank in (1, 2, 3)},
    "aten.scaled_dot_product_attention": attention,
    "aten.embedding": embedding,
    **{f"aten.{name}": _view(f"aten.{name}") for name in ("view", "reshape", "_unsafe_view")},
    "aten.flatten.using_ints": flatten,
    "aten.unflatten.int": unflatten,
    "aten.transpose.int": transpose,
    "aten.permute": permute,
    "aten.t": on_matrix("aten.t"),
    "aten.numpy_T": on_matrix("aten.numpy_T"),
    "aten.mT": on_matrix("aten.mT"),
    "aten.mH": on_matrix("aten.mH"),
    **{f"aten.{name}": split_pieces(f"aten.{name}") for name in ("split.Tensor", "split_with_sizes", "chunk")},
    "aten.slice.Tensor": slice_,
    "aten.narrow": narrow,
    "aten.select.int": select,
    "aten.unbind.int": at_dim("aten.unbind.int"),
    "aten.cat": join("aten.cat"),
    "aten.stack": join("aten.stack"),
    "aten.slice_scatter": put_slice,
    "aten.select_scatter": put_row,
    "aten.unsqueeze": at_dim("aten.unsqueeze", more=1),
    **{f"aten.squeeze{kind}": squeeze(f"aten.squeeze{kind}") for kind in ("", ".dim", ".dims")},
    "aten.expand": expand,
    "aten.pad": padded("aten.pad", "constant"),
    "aten.constant_pad_nd": padded("aten.constant_pad_nd"),
    "aten.flip": lambda draw: Case("aten.flip", (floats(*sizes(draw, 2)), [dim_of(draw, 2)])),
    "aten.roll": lambda draw: Case("aten.roll", (floats(*sizes(draw, 2)), [1], [dim_of(draw, 2)])),
    "aten.cumsum": at_dim("aten.cumsum"),
    "aten.tril": on_matrix("aten.tril", 0),
    "aten.triu": on_matrix("aten.triu", 1),
    "aten.softmax.int": at_dim("aten.softmax.int"),
    "aten.log_softmax.int": at_dim("aten.log_softmax.int"),
    "aten._softmax": lambda draw: Case("aten._softmax", (floats(*sizes(draw, 3)), dim_of(draw, 3), False)),
    "aten._log_softmax": lambda draw: Case("aten._log_softmax", (floats(*sizes(draw, 3)), dim_of(draw, 3), False)),
    "aten.sort": at_dim("aten.sort"),
    "aten.sort.stable": stable_sort,
    "aten.argsort": at_dim("aten.argsort"),
    "aten.topk": at_dim("aten.topk", 2),
    "aten.sum": reduction("aten.sum", whole_only=True),
    "aten.sum.dim_IntList": reduction("aten.sum.dim_IntList", listed=True),
    "aten.mean": reduction("aten.mean", whole_only=True),
    "aten.mean.dim": reduction("aten.mean.dim", listed=True),
    **{f"aten.{name}": reduction(f"aten.{name}", listed=True) for name in ("amax", "amin", "logsumexp")},
    **{
        f"aten.{name}": reduction(f"aten.{name}") for name in ("argmax", "argmin", "max.dim", "min.dim", "prod.dim_int")
    },
    **{f"aten.{name}": reduction(f"aten.{name}") for name in ("any.dim", "all.dim")},
    **{f"aten.{name}": reduction(f"aten.{name}", whole_only=True) for name in ("max", "min", "prod", "any", "all")},
    "aten.std.correction": reduction("aten.std.correction", listed=True, keyword=True),
    "aten.var.correction": reduction("aten.var.correction", listed=True, keyword=True),
    **{f"aten.{name}": reduction(f"aten.{name}", True, whole_only=True) for name in ("std", "var")},
    "aten.std.dim": variance("aten.std.dim"),
    "aten.var.dim": variance("aten.var.dim"),
    "aten.norm.Scalar": reduction("aten.norm.Scalar", 2, whole_only=True),
    "aten.norm.ScalarOpt_dim": reduction("aten.norm.ScalarOpt_dim", 2, listed=True),
    "aten.linalg_vector_norm": reduction("aten.linalg_vector_norm", 2, listed=True),
    "aten.layer_norm": last_dims_norm("aten.layer_norm", bias=True),
    "aten.rms_norm": last_dims_norm("aten.rms_norm", bias=False),
    "aten.group_norm": group_norm,
    **{
        f"aten.{name}{rank}d": pooling(name, rank)
        for name in ("avg_pool", "max_pool", "adaptive_avg_pool")
        for rank in (1, 2, 3)
    },
    "aten.gather": gather,
    "aten.index_select": index_select,
    "aten.one_hot": one_hot,
    "aten.cross_entropy_loss": cross_entropy,
    "aten.mse_loss": pairwise("aten.mse_loss"),
    "aten.l1_loss": pairwise("aten.l1_loss"),
    "aten.huber_loss": pairwise("aten.huber_loss"),
    "aten.smooth_l1_loss": pairwise("aten.smooth_l1_loss"),
    "aten.binary_cross_entropy_with_logits": pairwise("aten.binary_cross_entropy_with_logits", weights=2),
    "moec.route": route,
    "moec.dispatch": dispatch,
    "moec.grouped_linear": product("moec.grouped_linear", "egck", "enk"),
    "moec.collect": collect,
}

WITHOUT_CASE: dict[str, str] = {
    target: "nothing of it may be split"
    for target in RULES
    if target not in CASES and target.removeprefix("aten.").partition(".")[0]
    in ("arange", "zeros", "ones", "full", "scalar_tensor", "eye", "linspace", "tril_indices", "glu")
}  # fmt: skip
"""Rules that no case covers, and why."""
