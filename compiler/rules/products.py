"""Rules of sums of products: matrix products, einsum, convolutions, attention."""

from moec.compiler.rules.rule import Rule, Seen, read_rule, read_terms

TEXTS: dict[str, tuple[str, str]] = {
    "aten.linear": ("... k, n k, n -> ... n", "0*1 + 2"),
    "aten.mm": ("m k, k n -> m n", "0*1"),
    "aten.bmm": ("b m k, b k n -> b m n", "0*1"),
    "aten.mv": ("m k, k -> m", "0*1"),
    "aten.dot": ("k, k -> ", "0*1"),
    "aten.addmm": ("n, m k, k n -> m n", "0 + 1*2"),
    "aten.baddbmm": ("b m n, b m k, b k n -> b m n", "0 + 1*2"),
    "aten.embedding": ("_ d, ... -> ... d", "0"),
    "moec.grouped_linear": ("e g c k, e n k -> e g c n", "0*1"),
}


def einsum(seen: Seen) -> Rule:
    """The equation is the rule."""
    equation = str(seen.op.args[0]).replace(" ", "")
    left, _, right = equation.partition("->")
    spaced = [" ".join(part.replace("...", ".")).replace(".", "...") for part in (*left.split(","), right)]
    *inputs, output = spaced
    product = "*".join(str(place) for place in range(len(inputs)))
    return read_rule(f"{','.join(inputs)} -> {output}", product, seen)


def matmul(seen: Seen) -> Rule:
    left, right = (len(value.shape) for value in seen.inputs)
    text = {(1, 1): "k, k -> ", (2, 1): "m k, k -> m", (1, 2): "k, k n -> n"}.get((left, right))
    if text is None:
        text = (
            "... m k, k n -> ... m n"
            if right == 2
            else "... m k, ... k n -> ... m n"
            if left > 1
            else "k, ... k n -> ... n"
        )
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
    text = "b h _ _, b h _ _, b h _ _ -> b h _ _"
    rule = read_rule(text, "2", Seen(seen.op, seen.inputs[:3], seen.outputs, seen.sizes))
    masks = tuple((None,) * len(value.shape) for value in seen.inputs[3:])
    return Rule((*rule.inputs, *masks), rule.outputs, read_terms("2", 3))


def by_text(target: str):
    text, linear = TEXTS[target]
    return lambda seen: read_rule(text, linear, seen)
