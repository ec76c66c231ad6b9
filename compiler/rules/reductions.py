"""Rules of sums, norms, lookups and losses over whole dims."""

from moec.compiler.rules.rule import Factors, Rule, Seen, read_rule


def summed(seen: Seen) -> Rule:
    """A sum over dims that may be split: the result is then a partial sum."""
    return _reduced(seen, dim=1, contract=True)


def reduced_whole(seen: Seen) -> Rule:
    """Another reduction: what it goes over is whole."""
    return _reduced(seen, dim=1)


def spread(seen: Seen) -> Rule:
    """var and std, whose second argument may be a flag."""
    return _reduced(seen, dim=1, keepdim=3)


def norm(seen: Seen) -> Rule:
    """A norm, whose second argument is its degree."""
    return _reduced(seen, dim=2, keepdim=3)


def _reduced(seen: Seen, dim: int, keepdim: int = 2, contract: bool = False) -> Rule:
    """A reduction with its dims and whether they are kept at these places."""
    rank = len(seen.inputs[0].shape)
    dims = seen.dims(dim, "dim", rank)
    names = tuple(f"d{n}" for n in range(rank))
    keep = seen.argument(keepdim, "keepdim", False) is True
    given: Factors = tuple(name if contract or n not in dims else None for n, name in enumerate(names))
    made: Factors = tuple(None if n in dims else name for n, name in enumerate(names) if keep or n not in dims)
    return Rule((given,), (made,) * len(seen.outputs), ((0,),) if contract else ())


def layer_norm(seen: Seen) -> Rule:
    """The last dims are whole."""
    shape = seen.op.args[1]
    count = len(shape) if isinstance(shape, tuple) else 1
    rank = len(seen.inputs[0].shape)
    factors = (*(f"d{dim}" for dim in range(rank - count)), *(None,) * count)
    weights = tuple((None,) * len(value.shape) for value in seen.inputs[1:])
    return Rule((factors, *weights), (factors,))


def group_norm(seen: Seen) -> Rule:
    """Only samples are independent."""
    return _samples(seen)


def pooling(seen: Seen) -> Rule:
    """Samples and channels are independent."""
    rank = len(seen.inputs[0].shape)
    spatial = 2 if "2d" in seen.op.target else 1 if "1d" in seen.op.target else 3
    factors = (*(f"d{dim}" for dim in range(rank - spatial)), *(None,) * spatial)
    return Rule((factors,), (factors,) * len(seen.outputs), ((0,),) if "avg" in seen.op.target else ())


def _samples(seen: Seen) -> Rule:
    def of(rank: int) -> Factors:
        return ("b", *(None,) * (rank - 1))

    weights = tuple((None,) * len(value.shape) for value in seen.inputs[1:])
    return Rule((of(len(seen.inputs[0].shape)), *weights), tuple(of(len(value.shape)) for value in seen.outputs))


def gather(seen: Seen) -> Rule:
    """The dim that is indexed is whole, and one of which only a part is read."""
    sizes, read = (seen.numbers(value) for value in seen.inputs)
    dim = seen.integer(1, "dim", 0) % len(sizes)
    factors = tuple(None if n == dim or sizes[n] != read[n] else f"d{n}" for n in range(len(sizes)))
    return Rule((factors, factors), (factors,), ((0,),))


def index_select(seen: Seen) -> Rule:
    rank = len(seen.inputs[0].shape)
    dim = seen.integer(1, "dim", 0) % rank
    given = tuple(None if n == dim else f"d{n}" for n in range(rank))
    made = tuple("i" if n == dim else f"d{n}" for n in range(rank))
    return Rule((given, ("i",)), (made,), ((0,),))


def one_hot(seen: Seen) -> Rule:
    return read_rule("... -> ... _", "", seen)


def pairwise_loss(seen: Seen) -> Rule:
    """A loss of two equal shapes that is a sum over elements, perhaps with weights, which are repeated as needed."""
    whole_shape = seen.inputs[0].shape
    names = tuple(f"d{dim}" for dim in range(len(whole_shape)))
    given = []
    for value in seen.inputs:
        start = len(names) - len(value.shape)
        pairs = zip(value.shape, whole_shape[start:], names[start:], strict=True)
        given.append(tuple(name if size == of_whole else None for size, of_whole, name in pairs))
    return Rule(tuple(given), ((),) if not seen.outputs[0].shape else (names,))


def cross_entropy(seen: Seen) -> Rule:
    """Classes are whole, and of a mean the positions too; a sum over positions is a partial sum if they are split."""
    rank = len(seen.inputs[0].shape)
    classes, mean = min(1, rank - 1), seen.integer(3, "reduction", 1) == 1
    given = tuple(None if dim == classes or mean else f"d{dim}" for dim in range(rank))
    positions = tuple(factor for dim, factor in enumerate(given) if dim != classes)
    labels = given if seen.inputs[1].dtype.is_floating_point else positions
    weights = tuple((None,) * len(value.shape) for value in seen.inputs[2:])
    return Rule((given, labels, *weights), (positions if seen.outputs[0].shape else (),))


def whole(seen: Seen) -> Rule:
    """Nothing may be split: every rank does all of it."""
    return Rule(
        tuple((None,) * len(value.shape) for value in seen.inputs),
        tuple((None,) * len(value.shape) for value in seen.outputs),
    )
