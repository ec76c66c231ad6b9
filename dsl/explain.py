"""The pages that say what a code means, why it is a fault, and how it is mended: one Markdown file a code."""

from importlib.resources import files
from itertools import groupby

from moec.dsl.codes import CODES
from moec.dsl.diagnostics import plan_error

_FAMILIES = {
    "E0": "The file and its text",
    "E1": "Syntax, values, names and the command line",
    "E2": "The mesh, and what goes over it",
    "E3": "The model",
    "E4": "What only a trace of the model shows",
    "E5": "Files and folders",
    "W0": "Warnings",
}


def explain(code: str) -> str:
    """The page of a code; raises PlanError for one that moec does not have."""
    known = code.upper()
    if known not in CODES:
        help = [f"near it is `{close}`, {CODES[close]}" for close in _near(known)]
        raise plan_error("E118", f"moec has no code `{code}`", *help, "`moec explain` lists all codes")
    return files("moec.dsl").joinpath("pages", f"{known}.md").read_text(encoding="utf-8")


def list_codes() -> str:
    """Every code with what it means, a line each, by family."""
    lines: list[str] = []
    for family, codes in groupby(CODES, key=lambda code: code[:2]):
        lines += ["", _FAMILIES[family], *(f"  {code}  {CODES[code]}" for code in codes)]
    return "\n".join(lines[1:]) + "\n"


def _near(code: str) -> list[str]:
    """Codes of the same letters in another order, then those that differ in one letter, or have one more."""
    turned = [known for known in CODES if sorted(known) == sorted(code)]
    longer = [known for known in CODES if known[1:] == code]
    one_off = [known for known in CODES if len(known) == len(code) and sum(map(str.__ne__, known, code)) == 1]
    return list(dict.fromkeys([*turned, *longer, *one_off]))[:3]
