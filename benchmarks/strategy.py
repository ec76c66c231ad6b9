"""What of a strategy document holds: every number of docs/strategy.md, the page itself, and the search for its plan.

    python benchmarks/strategy.py            # prints each number, labelled
    python benchmarks/strategy.py --write    # and writes docs/strategy.md anew
    python benchmarks/strategy.py --check    # exits 1 if docs/strategy.md is not what --write would write
    python benchmarks/strategy.py --search   # the plans that come nearest to the six requirements, the best first

The search takes some ten minutes, the rest one.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import jinja2
from strategy_document.arithmetic import arithmetic
from strategy_document.estimates import estimates
from strategy_document.figure import Figure, texts
from strategy_document.nearest import nearest_plan
from strategy_document.search import say, search
from strategy_document.snippets import snippets

PAGE = Path(__file__).parents[1] / "docs" / "strategy.md"
TEMPLATE = Path(__file__).with_name("strategy_document") / "page.md.jinja"
SOURCES: tuple[tuple[str, Callable[[], Iterable[Figure]]], ...] = (
    ("arithmetic", arithmetic),
    ("its code, run", snippets),
    ("estimate", estimates),
    ("estimate", nearest_plan),
)
_SHOWN = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/strategy.md anew")
    parser.add_argument("--check", action="store_true", help="exit 1 if docs/strategy.md is out of date")
    parser.add_argument("--search", action="store_true", help="search for the nearest plan; takes some ten minutes")
    options = parser.parse_args()
    if options.search:
        print(*(say(candidate) for candidate in search()[:_SHOWN]), sep="\n")
        return
    text = page(texts(_found()))
    if options.write:
        PAGE.write_text(text, encoding="utf-8", newline="\n")
    if options.check and text != PAGE.read_text(encoding="utf-8"):
        sys.exit("docs/strategy.md is out of date: run python benchmarks/strategy.py --write")


def _found() -> list[Figure]:
    """All of them, printed as they come."""
    found: list[Figure] = []
    for source, make in SOURCES:
        for figure in make():
            print(f"{source:13}  {figure.name:28}  {figure.text}", flush=True)
            found.append(figure)
    return found


def page(values: dict[str, str]) -> str:
    """docs/strategy.md with these numbers in it."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(values)


if __name__ == "__main__":
    main()
