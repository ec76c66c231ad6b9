"""Rules of sums of products: matrix products, einsum, convolutions, attention."""

from dataclasses import replace

from moec.compiler.rules.reductions import whole
from moec.compiler.rules.rule import Rule, Seen, read_rule, read_terms

TEXTS: dict[str, tuple[str, str]] = {
    "aten.linear": ("... k, n k, n -> ... n", "0*1 + 2"),
    "aten.mm": ("m k, k n -> m n", "0*1"),
    "aten.bmm": ("b m k, b k n -> b m n", "0*1"),
    "aten.mv": ("m k, k -> m", "0*1"),
    "aten.dot": ("k, k -> ", "0*1"),
    "aten.embedding": ("_ d, ... -> ... d", "0"),
    "moec.grouped_linear": ("e g c k, e n k -> e g c n", "0*1"),
}


def einsum(seen: Seen) -> Rule:
    """The equation is the rule."""
    equation = str(seen.op.args[0]).replace(" ", "")
    left, _, right = equation.partition("->")
    spaced = [" ".join(part.replace("...", ".")).replace(".", "...") for part in (*left.split(","), right)]
    *inputs, output = spaced
    if any(len(set(part.split())) < len(part.split()) for part in inputs):
        return whole(seen)  # a diagonal
    product = "*".join(str(place) for place in range(len(inputs)))
    return read_rule(f"{','.join(inputs)} -> {output}", product, seen)


def matmul(seen: Seen) -> Rule:
    left, right = (len(value.shape) for value in seen.inputs)
    if right == 1:
        text = "... k, k -> ..."
    elif left == 1:
        text = "k, ... k n -> ... n"
    else:
        text = "... m k, k n -> ... m n" if right == 2 else "... m k, ... k n -> ... m n"
    rule = read_rule(text, "0*1", seen)
    shapes = [seen.numbers(value) for value in seen.inputs]
    given = [
        tuple(
            None if size == 1 and factor and factor.startswith(".") else factor
            for size, factor in zip(shape, factors, strict=True)
        )
        for shape, factors in zip(shapes, rule.inputs, strict=True)
    ]
    return Rule(tuple(given), rule.outputs, rule.terms)


def plus_product(text: str):
    """addmm and its like: what is added is repeated where it has fewer dims, or one of size 1."""

    def rule(seen: Seen) -> Rule:
        product = read_rule(text, "", replace(seen, inputs=seen.inputs[1:]))
        added, (output,) = seen.inputs[0], product.outputs
        sizes = seen.numbers(added), seen.numbers(seen.outputs[0])[len(output) - len(added.shape) :]
        pairs = zip(*sizes, output[len(output) - len(added.shape) :], strict=True)
        factors = tuple(factor if size == whole else None for size, whole, factor in pairs)
        return Rule((factors, *product.inputs), product.outputs, ((0,), (1, 2)))

    return rule


def convolution(seen: Seen) -> Rule:
    """Positions are whole; with several groups the channels are too."""
    spatial = " _" * (len(seen.inputs[0].shape) - 2)
    groups = seen.argument(6, "groups", 1)
    text = (
        f"b c{spatial}, o c{spatial}, o -> b o{spatial}"
        if groups == 1
        else f"b _{spatial}, _ _{spatial}, _ -> b _{spatial}"
    )
    return read_rule(text, "0*1 + 2", seen)


def attention(seen: Seen) -> Rule:
    """Heads and sequences are independent; a mask is whole."""
    text = "... _ _, ... _ _, ... _ _ -> ... _ _"
    rule = read_rule(text, "2", Seen(seen.op, seen.inputs[:3], seen.outputs, seen.sizes))
    masks = tuple((None,) * len(value.shape) for value in seen.inputs[3:])
    return Rule((*rule.inputs, *masks), rule.outputs, read_terms("2", 3))


def by_text(target: str):
    text, linear = TEXTS[target]
    return lambda seen: read_rule(text, linear, seen)
