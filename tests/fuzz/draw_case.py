"""Draws what moec may be given: broken plans, `--set` options and command lines, the same for a seed everywhere."""

import random
import re
from dataclasses import dataclass
from pathlib import Path

from faults import BYTE_FAULTS, TEXT_FAULTS, VALUE_FAULTS, VALUES

ROOT = Path(__file__).resolve().parents[2]
PLANS = tuple(
    path.read_text(encoding="utf-8")
    for path in (*sorted(ROOT.glob("examples/*.plan")), *sorted(ROOT.glob("tests/equivalence/plans/*.plan")))
)
"""Examples, and what the tests of equivalence run."""

SMALL_PLANS = tuple(text for text in PLANS if "hidden = h" not in text and "30b" not in text and "405b" not in text)

COMMAND_LINES = (
    ["compile", "a.plan", "-o", "out", "--json"],
    ["check", "a.plan", "--set", "mesh.tp=2", "--set=model.layers=2"],
    ["show", "a.plan", "--rank", "0"],
    ["show", "a.plan", "--after", "place"],
    ["verify", "a.plan", "--build", "out"],
    ["run", "a.plan", "--nproc", "8", "--", "--steps", "3"],
    ["new", "a.plan"],
    ["fmt", "a.plan", "--check"],
    ["explain", "E203"],
    ["--version"],
    [],
)
ARGUMENTS = (
    *"compile check show verify run new fmt explain a.plan --set --json -o --output --rank --stage".split(),
    *"--mesh --weights --program --after --build --nproc --help".split(),
    *"-h --version -- - --s --out -j -1 --rank=1 -oout mesh.tp=2 %s %(prog)s".split(),
    *("", " ", "--set=", "\n", "\x00", "\udcff", "größe", "-o=" + "x" * 5000, "9" * 5000, "@a.plan"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """What moec is given: the bytes of a plan's file, and each `--set`."""

    plan: bytes
    overrides: tuple[str, ...] = ()


def case(seed: int) -> Case:
    """The broken plan of a seed: half of them differ from a good plan in one place."""
    draw = random.Random(seed)
    text = draw.choice(PLANS)
    overrides: tuple[str, ...] = ()
    if draw.randrange(4) == 0:
        overrides = tuple(_override(draw, text) for _ in range(draw.choice((1, 1, 2, 3))))
    if not overrides or draw.randrange(4) == 0:
        for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
            text = draw.choice(TEXT_FAULTS)(draw, text)
    data = text.encode("utf-8", "surrogatepass")
    if draw.randrange(8) == 0:
        data = draw.choice(BYTE_FAULTS)(draw, data)
    return Case(data, overrides)


def _override(draw: random.Random, text: str) -> str:
    """A `--set`, perhaps of a path that the plan has, perhaps of a value that fits, perhaps neither."""
    words = re.findall(r"[a-z_]\w*", text)
    blocks = "model model.experts mesh shard schedule train require hardware communicate model.small".split()
    path = f"{draw.choice(blocks)}.{draw.choice(words)}" if draw.randrange(4) else draw.choice((*words, *blocks, ""))
    values = (*VALUES, "< 3 GiB", "8 over dp", "dp, tp", "float[batch]", 'python "a:b"', "1f1b", "")
    equal = draw.choice(("=", "=", "=", "=", "", " = ", "==", ".", "\n=\n"))
    written = f"{path}{equal}{draw.choice(values)}"
    if draw.randrange(3) == 0:
        written = draw.choice(TEXT_FAULTS)(draw, written)
    return written


def command_line(seed: int) -> list[str]:
    """Arguments of the command `moec`, most of them wrong."""
    draw = random.Random(seed)
    words = list(draw.choice(COMMAND_LINES))
    for _ in range(draw.choice((0, 1, 1, 2, 3))):
        at = draw.randrange(len(words) + 1)
        match draw.randrange(5):
            case 0:
                words[at:at] = [draw.choice(ARGUMENTS)]
            case 1:
                words[at : at + 1] = []
            case 2:
                words[at : at + 1] = [draw.choice((*ARGUMENTS, *VALUES))]
            case 3:
                words[at : at + 1] = [draw.choice(TEXT_FAULTS)(draw, word) for word in words[at : at + 1]]
            case _:
                words[at:at] = [f"{draw.choice(ARGUMENTS)}{draw.choice(('=', ''))}{draw.choice(VALUES)}"]
    return words


def readable_plan(seed: int) -> Case:
    """A small plan with some of its values and items changed, most often one that still reads well."""
    draw = random.Random(seed)
    text = draw.choice(SMALL_PLANS)
    for _ in range(draw.choice((1, 1, 2, 3))):
        text = draw.choice(VALUE_FAULTS)(draw, text)
    return Case(text.encode())
