"""Rules of sums, norms, lookups and losses over whole dims."""

from moec.compiler.rules.rule import Factors, Rule, Seen, read_rule


def summed(seen: Seen) -> Rule:
    """A sum over dims that may be split: the result is then a partial sum."""
    return _reduced(seen, contract=True)


def reduced_whole(seen: Seen) -> Rule:
    """Another reduction: what it goes over is whole."""
    return _reduced(seen, contract=False)


def _reduced(seen: Seen, contract: bool) -> Rule:
    rank = len(seen.inputs[0].shape)
    dims = seen.dims(1, "dim", rank)
    names = tuple(f"d{dim}" for dim in range(rank))
    keep = len(seen.outputs[0].shape) == rank
    given: Factors = tuple(name if contract or dim not in dims else None for dim, name in enumerate(names))
    made: Factors = tuple(None if dim in dims else name for dim, name in enumerate(names) if keep or dim not in dims)
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
    """The dim that is indexed is whole."""
    rank = len(seen.inputs[0].shape)
    dim = seen.integer(1, "dim", 0) % rank
    factors = tuple(None if n == dim else f"d{n}" for n in range(rank))
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
    """A loss of two equal shapes that is a sum over elements."""
    names = tuple(f"d{dim}" for dim in range(len(seen.inputs[0].shape)))
    return Rule((names, names), ((),) if not seen.outputs[0].shape else (names,))


def cross_entropy(seen: Seen) -> Rule:
    """Classes are whole here; summed over positions, the result is a partial sum."""
    logits = len(seen.inputs[0].shape)
    positions = [f"d{dim}" for dim in range(logits) if dim != min(1, logits - 1)]
    given = tuple(None if dim == min(1, logits - 1) else f"d{dim}" for dim in range(logits))
    labels = tuple(positions)
    weights = tuple((None,) * len(value.shape) for value in seen.inputs[2:])
    made: Factors = labels if seen.outputs[0].shape else ()
    return Rule((given, labels, *weights), (made,), ())


def whole(seen: Seen) -> Rule:
    """Nothing may be split: every rank does all of it."""
    return Rule(
        tuple((None,) * len(value.shape) for value in seen.inputs),
        tuple((None,) * len(value.shape) for value in seen.outputs),
    )
