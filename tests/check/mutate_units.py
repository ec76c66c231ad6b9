"""Faults of what a stage calls: collectives, regions forward and backward, layers, micro-batches."""

import re
from collections.abc import Iterator

from mutate import Files, Kinds, Mutant, lines_of, put

KINDS = Kinds()


def _axes_of(files: Files) -> list[str]:
    rank = files[min(file for file in files if file.startswith("rank_"))]
    groups = rank[rank.index("GROUPS") : rank.index("PREVIOUS")]
    return re.findall(r'^    "(\w+)":', groups, re.MULTILINE)


def _other_axis(name: str, pattern: str) -> None:
    def make(files: Files) -> Iterator[Mutant]:
        names = _axes_of(files)
        for file, place, found in lines_of(files, pattern):
            for other in names:
                if other != found["axes"]:
                    yield put(name, files, file, place, found[0].replace(f'"{found["axes"]}"', f'"{other}"'))
                    break

    KINDS.kind(name)(make)


FORWARD, BACKWARD = r"_forward$", r"_backward$"
_REDUCE = r'(?P<indent> +)(?P<y>\w+) = all_reduce\((?P<x>\w+), "(?P<axes>\w+)"\)'
_ANY = r'(?P<indent> +)(?P<y>\w+) = (?P<kind>\w+)\((?P<x>\w+), (?P<more>(?:\w+, )*)"(?P<axes>\w+)"(?P<dims>[^)]*)\)'
_RUN = r"(?P<indent> +)(?P<y>[\w, ]+) = tape\.run\((?P<f>\w+), (?P<args>[^)]*)\)"
_BACK = r"(?P<indent> +)(?P<y>[\w, ]+) = tape\.back\((?P<f>\w+), (?P<args>[^)]*)\)"

KINDS.line("drop a sum, forward", _REDUCE, lambda m: f"{m['indent']}{m['y']} = {m['x']}", inside=FORWARD)
KINDS.line("drop a sum, backward", _REDUCE, lambda m: f"{m['indent']}{m['y']} = {m['x']}", inside=BACKWARD)
KINDS.line(
    "double a sum, forward", _REDUCE, lambda m: f"{m[0]}\n{m[0].replace(m['x'] + ',', m['y'] + ',')}", inside=FORWARD
)
KINDS.line(
    "double a sum, backward", _REDUCE, lambda m: f"{m[0]}\n{m[0].replace(m['x'] + ',', m['y'] + ',')}", inside=BACKWARD
)
KINDS.line("maximum for sum", _REDUCE, lambda m: m[0].replace("all_reduce(", "all_reduce_max("))
_other_axis("a sum over the wrong axis", _REDUCE)
_other_axis(
    "an exchange over the wrong axis",
    _ANY.replace(r"(?P<kind>\w+)", r"(?P<kind>all_to_all|all_gather|reduce_scatter|send_rows|return_rows)"),
)
KINDS.line(
    "gather for scatter",
    _ANY,
    lambda m: m[0].replace("reduce_scatter(", "all_gather(") if m["kind"] == "reduce_scatter" else None,
)
KINDS.line(
    "scatter for gather",
    _ANY,
    lambda m: m[0].replace("all_gather(", "reduce_scatter(") if m["kind"] == "all_gather" else None,
)
KINDS.line("split and join swapped", _ANY, lambda m: re.sub(r"split=(\d), join=(\d)", r"split=\2, join=\1", m[0]))
KINDS.line("another dim", _ANY, lambda m: re.sub(r", dim=(\d)", lambda d: f", dim={1 - min(int(d[1]), 1)}", m[0]))
KINDS.line(
    "drop an exchange", _ANY, lambda m: f"{m['indent']}{m['y']} = {m['x']}" if m["kind"] != "all_reduce" else None
)
KINDS.line(
    "return for send", _ANY, lambda m: m[0].replace("send_rows(", "return_rows(") if m["kind"] == "send_rows" else None
)
KINDS.line("counts and arrivals swapped", _ANY, lambda m: re.sub(r"(counts\w*), (arrivals\w*)", r"\2, \1", m[0]))


def _given(m: re.Match[str], args: str) -> str:
    """A call with other arguments."""
    return f"{m[0][: m.start('args')]}{args}{m[0][m.end('args') :]}"


def _swapped(args: str, first: int, second: int) -> str:
    listed = args.split(", ")
    if max(first, second) >= len(listed):
        return args
    listed[first], listed[second] = listed[second], listed[first]
    return ", ".join(listed)


KINDS.line("activations of a region swapped", _RUN, lambda m: _given(m, _swapped(m["args"], 0, 1)))
KINDS.line(
    "weights of a region swapped",
    _RUN,
    lambda m: (
        _given(m, _swapped(m["args"], m["args"].count(","), m["args"].count(",") - 1))
        if m["args"].count("w.") > 1
        else None
    ),
)
KINDS.line("gradients of a region swapped", _BACK, lambda m: _given(m, _swapped(m["args"], 0, 1)))
KINDS.line("results of a backward swapped", _BACK, lambda m: m[0].replace(m["y"], _swapped(m["y"], 0, 1), 1))
KINDS.line("results of a region swapped", _RUN, lambda m: m[0].replace(m["y"], _swapped(m["y"], 0, 1), 1))
KINDS.line("zeros for a gradient", _BACK, lambda m: _given(m, ", ".join(["None", *m["args"].split(", ")[1:]])))
KINDS.line(
    "a summand of a gradient is left out",
    r" +(return|\w+ =) (\w+) \+ (\w+)",
    lambda m: m[0].replace(f"{m[2]} + {m[3]}", m[2]),
    inside=r"_?backward$",
)
KINDS.line(
    "a gradient is counted twice",
    r" +(return|\w+ =) (\w+) \+ (\w+)",
    lambda m: m[0].replace(f"{m[2]} + {m[3]}", f"{m[2]} + {m[2]}"),
    inside=r"_?backward$",
)
KINDS.line("a weight's gradient is not accumulated", r" +accumulate\([^)]*\)", lambda m: re.sub(r"\S.*", "pass", m[0]))
KINDS.line("a weight's gradient is accumulated twice", r" +accumulate\([^)]*\)", lambda m: f"{m[0]}\n{m[0]}")
KINDS.line("kept values are not kept", r" +tape\.keep\([^)]*\)", lambda m: re.sub(r"\S.*", "pass", m[0]))
KINDS.line(
    "a layer is left out, forward",
    r"(?P<h> +for \w+ in )(?P<l>\w+)(?P<t>:)",
    lambda m: f"{m['h']}{m['l']}[1:]{m['t']}",
    inside=r"^forward$",
)
KINDS.line(
    "a layer is left out, backward",
    r"(?P<h> +for \w+ in (?:reversed\()?)(?P<l>\w+)(?P<t>\)?:)",
    lambda m: f"{m['h']}{m['l']}[1:]{m['t']}",
    inside=r"^backward$",
)
KINDS.line(
    "layers in reverse", r" +for \w+ in (\w+):", lambda m: m[0].replace(m[1], f"reversed({m[1]})"), inside=r"^forward$"
)
KINDS.line(
    "another input",
    r'.*inputs\["(\w+)"\].*',
    lambda m: m[0].replace(f'"{m[1]}"', '"labels"' if m[1] != "labels" else '"tokens"'),
    inside=r"^forward$",
)
KINDS.line("inputs of another micro-batch", r" +inputs = run\.inputs\(i\)", lambda m: m[0].replace("(i)", "(i + 1)"))
KINDS.line(
    "the tape of another micro-batch",
    r" +tape = run\.tape\(i\)",
    lambda m: m[0].replace("(i)", "(0)"),
    inside=r"^backward$",
)


# ---- What is done to a value where it stands.

KINDS.line("the mean for the sum", _REDUCE, lambda m: f"{m[0]}\n{m['indent']}{m['y']} = {m['y']} / 2.0")
KINDS.line("a value overwritten in place", _REDUCE, lambda m: f"{m['indent']}{m['x']}.zero_()\n{m[0]}")
KINDS.line("a value freed too early", _RUN, lambda m: f"{m['indent']}del {m['args'].split(', ')[0]}\n{m[0]}")
