"""Single faults seeded into correct rank programs: each a line of text that is gone, doubled, swapped or changed.

A kind of fault is a function from the files of a plan to the places where it can be seeded. The text stays Python; what
is seeded may be what a person gets wrong by hand, or a compiler by a bug.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

Files = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One file with one fault. `lines` are those where a reader would look for it, in the changed file."""

    kind: str
    file: str
    text: str
    lines: tuple[int, ...]
    was: str
    now: str

    def named(self, message: str) -> bool:
        """Does a message name the changed line, or, as one that is gone has no number, the line beside it?"""
        found = re.findall(rf"\b{re.escape(self.file)}:(\d+)", message)
        return any(abs(int(number) - line) <= 1 for number in found for line in self.lines)


Make = Callable[[Files], Iterator[Mutant]]
KINDS: dict[str, Make] = {}


def kind(name: str) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        KINDS[name] = make
        return make

    return register


def mutants(files: Files, each: int) -> Iterator[Mutant]:
    """Of every kind at most `each`, spread over the places there are."""
    for make in KINDS.values():
        found = list(make(files))
        step = max(1, len(found) // each)
        yield from found[::step][:each]


# ---- How a line is changed.


def _lines(
    files: Files, pattern: str, where: str = "stage_", inside: str = ""
) -> Iterator[tuple[str, int, re.Match[str]]]:
    """Lines that a pattern matches whole, apart from their comments: file, place, match; in functions of some name."""
    for file in sorted(files):
        if not file.startswith(where):
            continue
        function = ""
        for place, line in enumerate(files[file].splitlines()):
            head = re.match(r"def (\w+)\(", line)
            function = head[1] if head else function
            found = re.fullmatch(pattern, line.partition("  # ")[0])
            if found and re.search(inside, function):
                yield file, place, found


def _put(name: str, files: Files, file: str, place: int, *now: str, gone: int = 1) -> Mutant:
    """The file with `gone` lines from a place on replaced."""
    lines = files[file].splitlines()
    was = "\n".join(lines[place : place + gone])
    changed = [*lines[:place], *now, *lines[place + gone :]]
    touched = tuple(range(place + 1, place + 1 + max(1, len(now))))
    return Mutant(name, file, "\n".join(changed) + "\n", touched, was, "\n".join(now))


def _line(
    name: str, pattern: str, change: Callable[[re.Match[str]], str | None], where: str = "stage_", inside: str = ""
) -> None:
    """A kind that replaces one line that a pattern matches."""

    def make(files: Files) -> Iterator[Mutant]:
        for file, place, found in _lines(files, pattern, where, inside):
            now = change(found)
            if now is not None and now != found[0]:
                yield _put(name, files, file, place, *now.split("\n"))

    KINDS[name] = make


def _axes_of(files: Files) -> list[str]:
    rank = files[min(file for file in files if file.startswith("rank_"))]
    groups = rank[rank.index("GROUPS") : rank.index("PREVIOUS")]
    return re.findall(r'^    "(\w+)":', groups, re.MULTILINE)


def _other_axis(name: str, pattern: str) -> None:
    def make(files: Files) -> Iterator[Mutant]:
        names = _axes_of(files)
        for file, place, found in _lines(files, pattern):
            for other in names:
                if other != found["axes"]:
                    yield _put(name, files, file, place, found[0].replace(f'"{found["axes"]}"', f'"{other}"'))
                    break

    KINDS[name] = make


FORWARD, BACKWARD = r"_forward$", r"_backward$"
_REDUCE = r'(?P<indent> +)(?P<y>\w+) = all_reduce\((?P<x>\w+), "(?P<axes>\w+)"\)'
_ANY = r'(?P<indent> +)(?P<y>\w+) = (?P<kind>\w+)\((?P<x>\w+), (?P<more>(?:\w+, )*)"(?P<axes>\w+)"(?P<dims>[^)]*)\)'
_RUN = r"(?P<indent> +)(?P<y>[\w, ]+) = tape\.run\((?P<f>\w+), (?P<args>[^)]*)\)"
_BACK = r"(?P<indent> +)(?P<y>[\w, ]+) = tape\.back\((?P<f>\w+), (?P<args>[^)]*)\)"
_STEP = r"rank_"

_line("drop a sum, forward", _REDUCE, lambda m: f"{m['indent']}{m['y']} = {m['x']}", inside=FORWARD)
_line("drop a sum, backward", _REDUCE, lambda m: f"{m['indent']}{m['y']} = {m['x']}", inside=BACKWARD)
_line("double a sum, forward", _REDUCE, lambda m: f"{m[0]}\n{m[0].replace(m['x'] + ',', m['y'] + ',')}", inside=FORWARD)
_line(
    "double a sum, backward", _REDUCE, lambda m: f"{m[0]}\n{m[0].replace(m['x'] + ',', m['y'] + ',')}", inside=BACKWARD
)
_line("maximum for sum", _REDUCE, lambda m: m[0].replace("all_reduce(", "all_reduce_max("))
_other_axis("a sum over the wrong axis", _REDUCE)
_other_axis(
    "an exchange over the wrong axis",
    _ANY.replace(r"(?P<kind>\w+)", r"(?P<kind>all_to_all|all_gather|reduce_scatter|send_rows|return_rows)"),
)
_line(
    "gather for scatter",
    _ANY,
    lambda m: m[0].replace("reduce_scatter(", "all_gather(") if m["kind"] == "reduce_scatter" else None,
)
_line(
    "scatter for gather",
    _ANY,
    lambda m: m[0].replace("all_gather(", "reduce_scatter(") if m["kind"] == "all_gather" else None,
)
_line("split and join swapped", _ANY, lambda m: re.sub(r"split=(\d), join=(\d)", r"split=\2, join=\1", m[0]))
_line("another dim", _ANY, lambda m: re.sub(r", dim=(\d)", lambda d: f", dim={1 - min(int(d[1]), 1)}", m[0]))
_line("drop an exchange", _ANY, lambda m: f"{m['indent']}{m['y']} = {m['x']}" if m["kind"] != "all_reduce" else None)
_line(
    "return for send", _ANY, lambda m: m[0].replace("send_rows(", "return_rows(") if m["kind"] == "send_rows" else None
)
_line("counts and arrivals swapped", _ANY, lambda m: re.sub(r"(counts\w*), (arrivals\w*)", r"\2, \1", m[0]))


def _swapped(args: str, first: int, second: int) -> str:
    listed = args.split(", ")
    if max(first, second) >= len(listed):
        return args
    listed[first], listed[second] = listed[second], listed[first]
    return ", ".join(listed)


_line("activations of a region swapped", _RUN, lambda m: m[0].replace(m["args"], _swapped(m["args"], 0, 1)))
_line(
    "weights of a region swapped",
    _RUN,
    lambda m: (
        m[0].replace(m["args"], _swapped(m["args"], m["args"].count(","), m["args"].count(",") - 1))
        if m["args"].count("w.") > 1
        else None
    ),
)
_line("gradients of a region swapped", _BACK, lambda m: m[0].replace(m["args"], _swapped(m["args"], 0, 1)))
_line("results of a backward swapped", _BACK, lambda m: m[0].replace(m["y"], _swapped(m["y"], 0, 1), 1))
_line("results of a region swapped", _RUN, lambda m: m[0].replace(m["y"], _swapped(m["y"], 0, 1), 1))
_line("zeros for a gradient", _BACK, lambda m: m[0].replace(m["args"], ", ".join(["None", *m["args"].split(", ")[1:]])))
_line(
    "a summand of a gradient is left out",
    r" +(return|\w+ =) (\w+) \+ (\w+)",
    lambda m: m[0].replace(f"{m[2]} + {m[3]}", m[2]),
    inside=r"_?backward$",
)
_line(
    "a gradient is counted twice",
    r" +(return|\w+ =) (\w+) \+ (\w+)",
    lambda m: m[0].replace(f"{m[2]} + {m[3]}", f"{m[2]} + {m[2]}"),
    inside=r"_?backward$",
)
_line("a weight's gradient is not accumulated", r" +accumulate\([^)]*\)", lambda m: re.sub(r"\S.*", "pass", m[0]))
_line("a weight's gradient is accumulated twice", r" +accumulate\([^)]*\)", lambda m: f"{m[0]}\n{m[0]}")
_line("kept values are not kept", r" +tape\.keep\([^)]*\)", lambda m: re.sub(r"\S.*", "pass", m[0]))
_line(
    "a layer is left out, forward",
    r"(?P<h> +for \w+ in )(?P<l>\w+)(?P<t>:)",
    lambda m: f"{m['h']}{m['l']}[1:]{m['t']}",
    inside=r"^forward$",
)
_line(
    "a layer is left out, backward",
    r"(?P<h> +for \w+ in (?:reversed\()?)(?P<l>\w+)(?P<t>\)?:)",
    lambda m: f"{m['h']}{m['l']}[1:]{m['t']}",
    inside=r"^backward$",
)
_line(
    "layers in reverse", r" +for \w+ in (\w+):", lambda m: m[0].replace(m[1], f"reversed({m[1]})"), inside=r"^forward$"
)
_line(
    "another input",
    r'.*inputs\["(\w+)"\].*',
    lambda m: m[0].replace(f'"{m[1]}"', '"labels"' if m[1] != "labels" else '"tokens"'),
    inside=r"^forward$",
)
_line("inputs of another micro-batch", r" +inputs = run\.inputs\(i\)", lambda m: m[0].replace("(i)", "(i + 1)"))
_line(
    "the tape of another micro-batch",
    r" +tape = run\.tape\(i\)",
    lambda m: m[0].replace("(i)", "(0)"),
    inside=r"^backward$",
)
_line(
    "the loss is counted on every rank",
    r' +run\.add_loss\((\w+), same="\w+"\)',
    lambda m: re.sub(r", same=.*", ")", m[0]),
)
_line("the loss is counted twice", r" +run\.add_loss\(.*\)", lambda m: f"{m[0]}\n{m[0]}")
_line("the loss is not counted", r" +run\.add_loss\(.*\)", lambda m: re.sub(r"\S.*", "pass", m[0]))
_line("the gradients of a family are not summed", r' +run\.reduce\("\w+"\)', lambda m: re.sub(r"\S.*", "pass", m[0]))
_line("the gradients of a family are summed twice", r' +run\.reduce\("\w+"\)', lambda m: f"{m[0]}\n{m[0]}")
_line("a weight in no family", r'( +"\w+": Weight\(.*?\)\), )"(\w+)"(, .*)', lambda m: f'{m[1]}""{m[3]}')
_line("a weight's split is gone", r' +"\w+": Weight\(.*', lambda m: re.sub(r'\("(\w+)",\)', "()", m[0], count=1))
_line(
    "another weight of the module",
    r' +"\w+": Weight\(".*wq\.weight".*',
    lambda m: m[0].replace("wq.weight", "wk.weight"),
)
_line("a size of a weight", r' +"\w+": Weight\(.*', lambda m: m[0].replace("HIDDEN", "HIDDEN + 1", 1))
_line(
    "the stack in another order",
    r' +"\w+": \(("\w+"), ("\w+").*',
    lambda m: m[0].replace(f"{m[1]}, {m[2]}", f"{m[2]}, {m[1]}") if "Weight" not in m[0] else None,
)
_line(
    "what arrives has another shape", r"(ACTIVATIONS_IN|GRADIENTS_IN) = .*", lambda m: m[0].replace("SEQ", "SEQ + 1", 1)
)
_line(
    "what arrives has another type",
    r"(ACTIVATIONS_IN|GRADIENTS_IN) = .*",
    lambda m: m[0].replace("DTYPE", "torch.int64", 1),
)
_line(
    "a part of the batch as another",
    r' +"(tokens|labels)": \(\(([^)]*)\), .*',
    lambda m: m[0].replace(f"(({m[2]})", "(()", 1) if m[2] else None,
)

# ---- Schedules and places of ranks: all in one rank's file.

_line(
    "the wrong micro-batch, forward",
    r".*stage\.forward\(run, (?P<i>[^,)]+).*",
    lambda m: m[0].replace(f"run, {m['i']}", f"run, {m['i']} + 1"),
    _STEP,
)
_line(
    "the wrong micro-batch, backward",
    r".*stage\.backward\(run, (?P<i>[^,)]+).*",
    lambda m: m[0].replace(f"run, {m['i']}", f"run, {m['i']} + 1"),
    _STEP,
)
_line("a backward is left out", r" +stage\.backward\(.*\)", lambda m: re.sub(r"\S.*", "pass", m[0]), _STEP)
_line("a send is left out", r" +run\.send\(.*\)", lambda m: re.sub(r"\S.*", "pass", m[0]), _STEP)
_line("a send is doubled", r" +run\.send\(.*\)", lambda m: f"{m[0]}\n{m[0]}", _STEP)
_line(
    "a send to the other side",
    r" +run\.send\(\w+, (PREVIOUS|NEXT)\)",
    lambda m: m[0].replace(m[1], "NEXT" if m[1] == "PREVIOUS" else "PREVIOUS"),
    _STEP,
)
_line("a step without its count", r" +run\.count_valid\(.*\)", lambda m: re.sub(r"\S.*", "pass", m[0]), _STEP)
_line(
    "a step without the sums of gradients",
    r" +stage\.reduce_gradients\(run\)",
    lambda m: re.sub(r"\S.*", "pass", m[0]),
    _STEP,
)
_line("a step that sums gradients twice", r" +stage\.reduce_gradients\(run\)", lambda m: f"{m[0]}\n{m[0]}", _STEP)
_line("a step without an update", r" +run\.update\(\)", lambda m: re.sub(r"\S.*", "pass", m[0]), _STEP)
_line("a step that updates twice", r" +run\.update\(\)", lambda m: f"{m[0]}\n{m[0]}", _STEP)
_line("one micro-batch less", r" +for i in range\((.*)\):", lambda m: m[0].replace(m[1], f"{m[1]} - 1"), _STEP)
_line(
    "a condition on the rank",
    r" +run\.update\(\)",
    lambda m: f'    if run.place.rank % 2:\n        run.reduce("x")\n{m[0]}',
    _STEP,
)


@kind("gradients are summed before the last backward")
def _early(files: Files) -> Iterator[Mutant]:
    for file, place, found in _lines(files, r" +stage\.reduce_gradients\(run\)", _STEP):
        before = files[file].splitlines()[place - 1]
        if "stage.backward(" in before and not before.startswith("     "):
            yield _put(
                "gradients are summed before the last backward", files, file, place - 1, found[0], before, gone=2
            )


@kind("a rank at the place of another")
def _place(files: Files) -> Iterator[Mutant]:
    for file, place, found in _lines(files, r'COORDINATES = \{.*"(\w+)": (\d+)\}', _STEP):
        now = found[0].replace(f'"{found[1]}": {found[2]}}}', f'"{found[1]}": {1 - min(int(found[2]), 1)}}}')
        yield _put("a rank at the place of another", files, file, place, now)


@kind("a group in another order")
def _order(files: Files) -> Iterator[Mutant]:
    for file, place, found in _lines(files, r'    "(\w+)": \((\d+), (\d+)(.*)\),', _STEP):
        now = f'    "{found[1]}": ({found[3]}, {found[2]}{found[4]}),'
        yield _put("a group in another order", files, file, place, now)


@kind("a group with another member")
def _member(files: Files) -> Iterator[Mutant]:
    for file, place, found in _lines(files, r'    "(\w+)": \((\d+), (\d+)(.*)\),', _STEP):
        now = f'    "{found[1]}": ({found[2]}, {int(found[3]) + 1}{found[4]}),'
        yield _put("a group with another member", files, file, place, now)


@kind("a shifted slice")
def _slice(files: Files) -> Iterator[Mutant]:
    for file, place, found in _lines(files, r'        "(\w+)": "(.*?)(\d+):(\d+)(.*)",', _STEP):
        low, high = int(found[3]), int(found[4])
        now = f'        "{found[1]}": "{found[2]}{low + 1}:{high + 1}{found[5]}",'
        yield _put("a shifted slice", files, file, place, now)


@kind("another neighbour")
def _neighbour(files: Files) -> Iterator[Mutant]:
    for file, place, found in _lines(files, r"PREVIOUS, NEXT = (\w+), (\w+)", _STEP):
        if found[2].isdigit():
            yield _put(
                "another neighbour", files, file, place, f"PREVIOUS, NEXT = {found[1]}, {int(found[2]) + 1}  # as was"
            )


@kind("the stage of another rank")
def _stage(files: Files) -> Iterator[Mutant]:
    for file, place, found in _lines(files, r"import stage_(\d+) as stage", _STEP):
        other = 1 - min(int(found[1]), 1)
        if f"stage_{other}.py" in files:
            yield _put("the stage of another rank", files, file, place, f"import stage_{other} as stage")
