"""Faults of what a region computes, which only numbers can show: the static check knows regions by their names.

Some changes are none: rotary positions that are all shifted by one give the same products of queries and keys, and
what is cast to FLOAT is exact already where the proof runs, in float64. A precision is therefore named in full here.
"""

import re
from collections.abc import Callable

from mutate import Kinds

KINDS = Kinds()

Change = Callable[[re.Match[str]], str | None]


def _text(old: str, new: str) -> Change:
    """One text for another, where a line has it."""
    return lambda m: m[0].replace(old, new, 1)


def _pattern(old: str, new: str) -> Change:
    return lambda m: re.sub(old, new, m[0], count=1)


def _then(name: str, *lines: str) -> Change:
    """A line after this one, which has the same indentation; `name` has to be among what the line makes."""

    def change(m: re.Match[str]) -> str | None:
        made = re.match(r"( +)([\w, ]+) = ", m[0])
        if made is None or name not in made[2].split(", "):
            return None
        return "\n".join([m[0], *(f"{made[1]}{line}" for line in lines)])

    return change


ANY = r" {4}\S.*"
_CHOICE = r" +prob, expert\w*(, place)? = routing\.\w+\(.*"

# ---- Attention.

KINDS.line("attention without its scale", ANY, _text("is_causal=True)", "is_causal=True, scale=1.0)"))
KINDS.line("attention without its mask", ANY, _text(", is_causal=True", ""))
KINDS.line("queries and keys swapped", ANY, _text("attention(q, k, v", "attention(k, q, v"))
KINDS.line("keys and values swapped", ANY, _text("attention(q, k, v", "attention(q, v, k"))
KINDS.line("keys at the next position", r" +k = k \* cos .*", _text("cos", "cos.roll(1, 0)"))
KINDS.line("a half turned the other way", ANY, _text("torch.cat((-part, h), -1)", "torch.cat((part, -h), -1)"))
KINDS.line("queries that are not turned", r" +q = q \* cos .*", lambda m: re.sub(r"= .*", "= q", m[0]))
KINDS.line("another base of positions", ANY, _text("10000.0", "5000.0"))
KINDS.line(
    "heads and their size crossed",
    r" +[qkv] = .*",
    _text("LOCAL_HEADS, HEAD_DIM).transpose(1, 2)", "HEAD_DIM, LOCAL_HEADS).permute(0, 3, 1, 2)"),
)

# ---- Norms, activations, residuals, biases.

KINDS.line("a larger epsilon", ANY, _text("1e-05", "1e-03"))
KINDS.line("a slightly smaller epsilon", ANY, _text("1e-05", "9e-06"))
KINDS.line("a norm without its weight", ANY, _pattern(r"(F\.rms_norm\(\w+, \([^)]*\), )\w+", r"\1None"))
KINDS.line("another norm", ANY, _pattern(r"F\.rms_norm\((\w+, \([^)]*\), \w+), ", r"F.layer_norm(\1, None, "))
KINDS.line("a norm over other groups", ANY, _pattern(r"F\.group_norm\((.*), 1, (\w+), ", r"F.group_norm(\1, 2, \2, "))
KINDS.line("silu for gelu", ANY, _text("F.gelu(", "F.silu("))
KINDS.line("gelu for silu", ANY, _text("F.silu(", "F.gelu("))
KINDS.line("an approximate gelu", ANY, _pattern(r"F\.gelu\((\w+)\)", r'F.gelu(\1, approximate="tanh")'))
KINDS.line("a gate left out", r" +act = .* \* up", _text(" * up", ""))
KINDS.line("a residual left out", r" +(x = |return )x \+ .*", _pattern(r"x \+ ", ""))
KINDS.line("a residual added twice", r" +(x = |return )x \+ .*", _pattern(r"x \+ ", "x + x + "))
KINDS.line("a bias left out", ANY, _pattern(r"F\.linear\((\w+), (\w+), \w+\)", r"F.linear(\1, \2)"))
KINDS.line("another reach of a mean", ANY, _text(".mean((2, 3))", ".amax((2, 3))"))

# ---- Routing and experts.

KINDS.line("a router detached", _CHOICE, _then("prob", "prob = prob.detach()"))
KINDS.line("a router that learns nothing", ANY, _text("router.to(FLOAT)", "router.detach().to(FLOAT)"))
KINDS.line(
    "a router that teaches nothing", ANY, _text("F.linear(h.to(FLOAT), router", "F.linear(h.detach().to(FLOAT), router")
)
KINDS.line("chosen before the softmax, or after", _CHOICE, lambda m: _flipped(m[0]))
KINDS.line("weights of choices made to add up to 1", _CHOICE, _then("prob", "prob = prob / prob.sum(-1, keepdim=True)"))
KINDS.line(
    "weights of choices all 1",
    ANY,
    _pattern(r"(read_slots\(\w+|collect_rows\(\w+), prob", r"\1, torch.ones_like(prob)"),
)
KINDS.line("capacity less by one", ANY, _pattern(r"(routing\.(?:route|drop)\(.*)\bCAPACITY\b", r"\1CAPACITY - 1"))
KINDS.line("capacity more by one", ANY, _pattern(r"(routing\.(?:route|drop)\(.*)\bCAPACITY\b", r"\1CAPACITY + 1"))
KINDS.line(
    "a token dropped",
    _CHOICE,
    _then("prob", "prob = torch.cat((torch.zeros_like(prob[:, :1]), prob[:, 1:]), 1)"),
)
KINDS.line("the next expert", ANY, _pattern(r"(routing\.slots\(|sort_rows\(\w+, )expert", r"\1(expert + 1) % EXPERTS"))
KINDS.line("another routing group", r".*= routing\.route\(.*", _text('"per_sequence"', '"per_microbatch"'))
KINDS.line("experts in reverse", ANY, _pattern(r"(grouped_linear\w*\(.*, )up\b", r"\1up.flip(0)"))

# ---- The loss.

KINDS.line("a loss without its denominator", r" +return h / \w+", _pattern(r" / \w+", ""))
KINDS.line("the mean of means", ANY, _text('reduction="sum"', 'reduction="mean"'))
KINDS.line("a mean of what this rank has", ANY, _pattern(r"(cross_entropy_of_sums\(.*-100)\)", r'\1, "mean")'))
KINDS.line(
    "half of the loss", r" +return (vocabulary\.cross_entropy_of_sums\(.*|.* / count_)", lambda m: f"{m[0]} * 0.5"
)
KINDS.line("targets counted twice", r" +return \(labels != -100\)\.sum\(\)", lambda m: f"{m[0]} * 2")

# ---- Gradients and precision.

KINDS.line("a gradient cut off", r" +return F\.linear\(act, .*", _text("(act,", "(act.detach(),"))
KINDS.line(
    "embeddings that learn nothing", ANY, _pattern(r"((?:embed_rows|F\.embedding)\(\w+, )(\w+)", r"\1\2.detach()")
)
KINDS.line("single precision", ANY, _text(".to(FLOAT)", ".to(torch.float32)"))
KINDS.line("half precision of a product", r" +return F\.linear\(.*\)", lambda m: f"{m[0]}.to(torch.bfloat16).to(DTYPE)")


def _flipped(line: str) -> str:
    """The last argument, whether the softmax comes first."""
    return line[: -len("True)")] + "False)" if line.endswith("True)") else re.sub(r"False\)$", "True)", line)
