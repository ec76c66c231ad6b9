"""Faults of what a rank is told: weights and inputs of its stage, its schedule, its place among the ranks."""

import re
from collections.abc import Iterator

from mutate import Files, Kinds, Mutant, lines_of, put

KINDS = Kinds()
RANK = "rank_"

KINDS.line(
    "the loss is counted on every rank",
    r' +run\.add_loss\((\w+), same="\w+"\)',
    lambda m: re.sub(r", same=.*", ")", m[0]),
)
KINDS.line("the loss is counted twice", r" +run\.add_loss\(.*\)", lambda m: f"{m[0]}\n{m[0]}")
KINDS.line("the loss is not counted", r" +run\.add_loss\(.*\)", lambda m: re.sub(r"\S.*", "pass", m[0]))
KINDS.line(
    "the gradients of a family are not summed", r' +run\.reduce\("\w+"\)', lambda m: re.sub(r"\S.*", "pass", m[0])
)
KINDS.line("the gradients of a family are summed twice", r' +run\.reduce\("\w+"\)', lambda m: f"{m[0]}\n{m[0]}")
KINDS.line("a weight in no family", r'( +"\w+": Weight\(.*?\)\), )"(\w+)"(, .*)', lambda m: f'{m[1]}""{m[3]}')
KINDS.line("a weight's split is gone", r' +"\w+": Weight\(.*', lambda m: re.sub(r'\("(\w+)",\)', "()", m[0], count=1))
KINDS.line(
    "another weight of the module",
    r' +"\w+": Weight\(".*wq\.weight".*',
    lambda m: m[0].replace("wq.weight", "wk.weight"),
)
KINDS.line("a size of a weight", r' +"\w+": Weight\(.*', lambda m: m[0].replace("HIDDEN", "HIDDEN + 1", 1))
KINDS.line(
    "the stack in another order",
    r' +"\w+": \(("\w+"), ("\w+").*',
    lambda m: m[0].replace(f"{m[1]}, {m[2]}", f"{m[2]}, {m[1]}") if "Weight" not in m[0] else None,
)
KINDS.line(
    "what arrives has another shape", r"(ACTIVATIONS_IN|GRADIENTS_IN) = .*", lambda m: m[0].replace("SEQ", "SEQ + 1", 1)
)
KINDS.line(
    "what arrives has another type",
    r"(ACTIVATIONS_IN|GRADIENTS_IN) = .*",
    lambda m: m[0].replace("DTYPE", "torch.int64", 1),
)
KINDS.line(
    "a part of the batch as another",
    r' +"(tokens|labels)": \(\(([^)]*)\), .*',
    lambda m: m[0].replace(f"(({m[2]})", "(()", 1) if m[2] else None,
)

_WEIGHT = r' +"\w+": Weight\(.*'
KINDS.line("a weight that does not decay", _WEIGHT, lambda m: re.sub(r'"\),$', '", decay=False),', m[0]))
KINDS.line("a weight that decays", _WEIGHT, lambda m: m[0].replace(", decay=False", ""))
KINDS.line("a frozen weight", _WEIGHT, lambda m: re.sub(r"\),$", ", trainable=False),", m[0]))
KINDS.line("other initial values", _WEIGHT, lambda m: re.sub(r'"normal [\d.]+"', '"normal 0.03"', m[0]))
KINDS.line("zeros for ones", _WEIGHT, lambda m: m[0].replace('"ones"', '"zeros"'))

# ---- Schedules and places of ranks: all in one rank's file.

KINDS.line(
    "the wrong micro-batch, forward",
    r".*stage\.forward\(run, (?P<i>[^,)]+).*",
    lambda m: m[0].replace(f"run, {m['i']}", f"run, {m['i']} + 1"),
    RANK,
)
KINDS.line(
    "the wrong micro-batch, backward",
    r".*stage\.backward\(run, (?P<i>[^,)]+).*",
    lambda m: m[0].replace(f"run, {m['i']}", f"run, {m['i']} + 1"),
    RANK,
)
KINDS.line("a backward is left out", r" +stage\.backward\(.*\)", lambda m: re.sub(r"\S.*", "pass", m[0]), RANK)
KINDS.line("a send is left out", r" +run\.send\(.*\)", lambda m: re.sub(r"\S.*", "pass", m[0]), RANK)
KINDS.line("a send is doubled", r" +run\.send\(.*\)", lambda m: f"{m[0]}\n{m[0]}", RANK)
KINDS.line(
    "a send to the other side",
    r" +run\.send\(\w+, (PREVIOUS|NEXT)\)",
    lambda m: m[0].replace(m[1], "NEXT" if m[1] == "PREVIOUS" else "PREVIOUS"),
    RANK,
)
KINDS.line("a step without its count", r" +run\.count_valid\(.*\)", lambda m: re.sub(r"\S.*", "pass", m[0]), RANK)
KINDS.line(
    "a step without the sums of gradients",
    r" +stage\.reduce_gradients\(run\)",
    lambda m: re.sub(r"\S.*", "pass", m[0]),
    RANK,
)
KINDS.line("a step that sums gradients twice", r" +stage\.reduce_gradients\(run\)", lambda m: f"{m[0]}\n{m[0]}", RANK)
KINDS.line("a step without an update", r" +run\.update\(\)", lambda m: re.sub(r"\S.*", "pass", m[0]), RANK)
KINDS.line("a step that updates twice", r" +run\.update\(\)", lambda m: f"{m[0]}\n{m[0]}", RANK)
KINDS.line("one micro-batch less", r" +for i in range\((.*)\):", lambda m: m[0].replace(m[1], f"{m[1]} - 1"), RANK)
KINDS.line(
    "a condition on the rank",
    r" +run\.update\(\)",
    lambda m: f'    if run.place.rank % 2 == 0:\n        run.reduce("x")\n{m[0]}',
    RANK,
)


@KINDS.kind("gradients are summed before the last backward")
def _early(files: Files) -> Iterator[Mutant]:
    for file, place, found in lines_of(files, r" +stage\.reduce_gradients\(run\)", RANK):
        before = files[file].splitlines()[place - 1]
        if "stage.backward(" in before and not before.startswith("     "):
            yield put("gradients are summed before the last backward", files, file, place - 1, found[0], before, gone=2)


@KINDS.kind("a rank at the place of another")
def _place(files: Files) -> Iterator[Mutant]:
    for file, place, found in lines_of(files, r'COORDINATES = \{.*"(\w+)": (\d+)\}', RANK):
        now = found[0].replace(f'"{found[1]}": {found[2]}}}', f'"{found[1]}": {1 - min(int(found[2]), 1)}}}')
        yield put("a rank at the place of another", files, file, place, now)


@KINDS.kind("a group in another order")
def _order(files: Files) -> Iterator[Mutant]:
    for file, place, found in lines_of(files, r'    "(\w+)": \((\d+), (\d+)(.*)\),', RANK):
        now = f'    "{found[1]}": ({found[3]}, {found[2]}{found[4]}),'
        yield put("a group in another order", files, file, place, now)


@KINDS.kind("a group with another member")
def _member(files: Files) -> Iterator[Mutant]:
    for file, place, found in lines_of(files, r'    "(\w+)": \((\d+), (\d+)(.*)\),', RANK):
        now = f'    "{found[1]}": ({found[2]}, {int(found[3]) + 1}{found[4]}),'
        yield put("a group with another member", files, file, place, now)


@KINDS.kind("a shifted slice")
def _slice(files: Files) -> Iterator[Mutant]:
    for file, place, found in lines_of(files, r'        "(\w+)": "(.*?)(\d+):(\d+)(.*)",', RANK):
        low, high = int(found[3]), int(found[4])
        now = f'        "{found[1]}": "{found[2]}{low + 1}:{high + 1}{found[5]}",'
        yield put("a shifted slice", files, file, place, now)


@KINDS.kind("another neighbour")
def _neighbour(files: Files) -> Iterator[Mutant]:
    for file, place, found in lines_of(files, r"PREVIOUS, NEXT = (\w+), (\w+)", RANK):
        if found[2].isdigit():
            yield put(
                "another neighbour", files, file, place, f"PREVIOUS, NEXT = {found[1]}, {int(found[2]) + 1}  # as was"
            )


@KINDS.kind("the stage of another rank")
def _stage(files: Files) -> Iterator[Mutant]:
    for file, place, found in lines_of(files, r"import stage_(\d+) as stage", RANK):
        other = 1 - min(int(found[1]), 1)
        if f"stage_{other}.py" in files:
            yield put("the stage of another rank", files, file, place, f"import stage_{other} as stage")


@KINDS.kind("sums of gradients crossed on one rank")
def _crossed(files: Files) -> Iterator[Mutant]:
    for file, place, found in lines_of(files, r"( +)stage\.reduce_gradients\(run\)", RANK):
        stage = re.search(r"import (stage_\d+) as stage", files[file])
        families = re.findall(r' +run\.reduce\("(\w+)"\)', files[f"{stage[1]}.py"] if stage else "")
        if len(families) > 1:
            now = [f'{found[1]}run.reduce("{family}")' for family in reversed(families)]
            yield put("sums of gradients crossed on one rank", files, file, place, *now)


@KINDS.kind("gradients are summed before the last is received")
def _before_receive(files: Files) -> Iterator[Mutant]:
    """A circle over two axes: one rank waits in a sum for a peer, which waits for its own neighbour."""
    for file, place, found in lines_of(files, r"    stage\.reduce_gradients\(run\)", RANK):
        before = files[file].splitlines()[place - 2 : place]
        if re.match(r" {4}\w+ = run\.receive\(", before[0]) and re.match(r" {4}\S*.*stage\.backward\(", before[1]):
            name = "gradients are summed before the last is received"
            yield put(name, files, file, place - 2, found[0], *before, gone=3)
