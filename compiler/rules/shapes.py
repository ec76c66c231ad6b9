"""Rules of operators that move elements and change none: views, transpositions, pieces and their joins."""

from math import prod

from moec.compiler.rules.rule import Factors, Rule, Seen


def view(seen: Seen) -> Rule:
    """Of dims that are merged or taken apart the first keeps the factor; the others are whole."""
    (value,), (output,) = seen.inputs[:1], seen.outputs
    given, made = _grouped(seen.numbers(value), seen.numbers(output))
    return Rule((given,), (made,), ((0,),))


def permuted(order: list[int], seen: Seen) -> Rule:
    names = _names(len(order))
    return Rule((names,), (tuple(names[dim] for dim in order),), ((0,),))


def transpose(seen: Seen) -> Rule:
    rank = len(seen.inputs[0].shape)
    order = list(range(rank))
    one, other = seen.integer(1, "dim0", 0) % rank, seen.integer(2, "dim1", 1) % rank
    order[one], order[other] = order[other], order[one]
    return permuted(order, seen)


def reversed_dims(seen: Seen) -> Rule:
    return permuted(list(range(len(seen.inputs[0].shape)))[::-1], seen)


def last_two(seen: Seen) -> Rule:
    """The transpose of a matrix, or of each of a stack."""
    rank = len(seen.inputs[0].shape)
    return permuted([*range(rank - 2), rank - 1, rank - 2], seen)


def permute(seen: Seen) -> Rule:
    rank = len(seen.inputs[0].shape)
    dims = seen.argument(1, "dims", ())
    return permuted([dim % rank for dim in dims if isinstance(dim, int)] if isinstance(dims, tuple) else [], seen)


def pieces(seen: Seen) -> Rule:
    """split, chunk, slice: the dim that is cut is whole, of every piece."""
    dim = _dim(
        seen,
        {"aten.split.Tensor": 2, "aten.split_with_sizes": 2, "aten.chunk": 2, "aten.slice.Tensor": 1}[seen.op.target],
    )
    factors = _whole_at(_names(len(seen.inputs[0].shape)), dim)
    return Rule((factors,), (factors,) * len(seen.outputs), ((0,),))


def narrow(seen: Seen) -> Rule:
    factors = _whole_at(_names(len(seen.inputs[0].shape)), _dim(seen, 1))
    return Rule((factors,), (factors,), ((0,),))


def without(seen: Seen) -> Rule:
    """select, unbind: the dim goes."""
    dim = _dim(seen, 1)
    names = _names(len(seen.inputs[0].shape))
    left = (*names[:dim], *names[dim + 1 :])
    return Rule((_whole_at(names, dim),), (left,) * len(seen.outputs), ((0,),))


def join(seen: Seen) -> Rule:
    """cat: the dim that grows is whole."""
    rank = len(seen.outputs[0].shape)
    factors = _whole_at(_names(rank), seen.integer(1, "dim", 0) % rank)
    return Rule((factors,) * len(seen.inputs), (factors,), tuple((n,) for n in range(len(seen.inputs))))


def stack(seen: Seen) -> Rule:
    rank = len(seen.outputs[0].shape)
    dim = seen.integer(1, "dim", 0) % rank
    names = _names(rank - 1)
    made = (*names[:dim], None, *names[dim:])
    return Rule((names,) * len(seen.inputs), (made,), tuple((n,) for n in range(len(seen.inputs))))


def put_slice(seen: Seen) -> Rule:
    """slice_scatter: the dim that is written to in part is whole."""
    factors = _whole_at(_names(len(seen.inputs[0].shape)), seen.integer(2, "dim", 0) % len(seen.inputs[0].shape))
    return Rule((factors, factors), (factors,), ((0,), (1,)))


def put_row(seen: Seen) -> Rule:
    """select_scatter: the dim of which one index is written is whole."""
    names = _names(len(seen.inputs[0].shape))
    dim = seen.integer(2, "dim", 0) % len(names)
    factors = _whole_at(names, dim)
    return Rule((factors, (*names[:dim], *names[dim + 1 :])), (factors,), ((0,), (1,)))


def unsqueeze(seen: Seen) -> Rule:
    rank = len(seen.outputs[0].shape)
    dim = seen.integer(1, "dim", 0) % rank
    names = _names(rank - 1)
    return Rule((names,), ((*names[:dim], None, *names[dim:]),), ((0,),))


def squeeze(seen: Seen) -> Rule:
    """Dims of one go."""
    sizes = seen.numbers(seen.inputs[0])
    dims = seen.dims(1, "dim", len(sizes))
    names = _names(len(sizes))
    given = tuple(None if sizes[dim] == 1 and dim in dims else names[dim] for dim in range(len(sizes)))
    made = tuple(name for dim, name in enumerate(given) if not (sizes[dim] == 1 and dim in dims))
    return Rule((given,), (made,), ((0,),))


def expand(seen: Seen) -> Rule:
    """What is repeated is whole."""
    given, made = seen.numbers(seen.inputs[0]), seen.numbers(seen.outputs[0])
    names = _names(len(made))
    start = len(made) - len(given)
    left = tuple(names[start + dim] if size == made[start + dim] else None for dim, size in enumerate(given))
    right = tuple(name if dim >= start and left[dim - start] else None for dim, name in enumerate(names))
    return Rule((left,), (right,), ((0,),))


def whole_dims(place: int, name: str, linear: bool = False, last: bool = False):
    """One dim (or several) of the first input must be whole; outputs have its shape. None given is all, or the last."""

    def rule(seen: Seen) -> Rule:
        rank = len(seen.inputs[0].shape)
        given = seen.argument(place, name, -1 if last else None)
        dims = {rank - 1} if last and given == -1 else seen.dims(place, name, rank)
        factors = tuple(None if dim in dims else factor for dim, factor in enumerate(_names(rank)))
        return Rule((factors,), (factors,) * len(seen.outputs), ((0,),) if linear else ())

    return rule


def pad(seen: Seen) -> Rule:
    """What is padded is whole; with zeros it is linear. Amounts are a pair a dim, the last dim first."""
    amounts = seen.argument(1, "pad", ())
    amounts = amounts if isinstance(amounts, tuple) else ()
    rank = len(seen.inputs[0].shape)
    padded = {rank - 1 - n // 2 for n, amount in enumerate(amounts) if amount != 0}
    factors = tuple(None if dim in padded else factor for dim, factor in enumerate(_names(rank)))
    value = seen.argument(3 if seen.op.target == "aten.pad" else 2, "value", 0)
    zeros = seen.argument(2, "mode", "constant") == "constant" or seen.op.target != "aten.pad"
    return Rule((factors,), (factors,), ((0,),) if zeros and value in (None, 0, 0.0) else ())


def _grouped(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[Factors, Factors]:
    """Walk both shapes; where their products meet, a group of dims ends."""
    given: list[str | None] = [None] * len(left)
    made: list[str | None] = [None] * len(right)
    i = j = group = 0
    while i < len(left) and j < len(right):
        starts = i, j
        a, b = left[i], right[j]
        while a != b:
            if a < b:
                i += 1
                a *= left[i]
            else:
                j += 1
                b *= right[j]
        while (
            i + 1 < len(left)
            and left[i + 1] == 1
            and prod(right[j + 1 :]) == prod(left[i + 2 :])
            and _ones(left[i + 1 :], right[j + 1 :])
        ):
            i += 1
        first_i = next((n for n in range(starts[0], i + 1) if left[n] != 1), starts[0])
        first_j = next((n for n in range(starts[1], j + 1) if right[n] != 1), starts[1])
        if a != 1:
            given[first_i] = made[first_j] = f"g{group}"
        group += 1
        i, j = i + 1, j + 1
    return tuple(given), tuple(made)


def _ones(left: tuple[int, ...], right: tuple[int, ...]) -> bool:
    """Would the walk go wrong if the 1 that comes next on the left were matched with what comes on the right?"""
    return bool(left) and left[0] == 1 and (not right or right[0] != 1)


def _names(rank: int) -> Factors:
    return tuple(f"d{dim}" for dim in range(rank))


def _dim(seen: Seen, place: int) -> int:
    return seen.integer(place, "dim", 0) % len(seen.inputs[0].shape)


def _whole_at(names: Factors, dim: int) -> Factors:
    return (*names[:dim], None, *names[dim + 1 :])
