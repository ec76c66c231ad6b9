"""Single faults seeded into correct rank programs: each a line of text that is gone, doubled, swapped or changed.

A kind of fault is a function from the files of a plan to the places where it can be seeded. The text stays Python; what
is seeded may be what a person gets wrong by hand, or a compiler by a bug. The kinds are in mutate_units.py (what a
stage calls), mutate_ranks.py (tables, schedules and places of ranks) and mutate_regions.py (what is computed).
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


class Kinds(dict[str, Make]):
    """Kinds of faults by name, each with the places where it can be seeded."""

    def kind(self, name: str) -> Callable[[Make], Make]:
        """Adds a function that makes a kind."""

        def register(make: Make) -> Make:
            assert name not in self, f"two kinds are called {name}"
            self[name] = make
            return make

        return register

    def line(
        self,
        name: str,
        pattern: str,
        change: Callable[[re.Match[str]], str | None],
        where: str = "stage_",
        inside: str = "",
    ) -> None:
        """A kind that replaces one line that a pattern matches whole; no change, or None, is no place for it."""

        def make(files: Files) -> Iterator[Mutant]:
            for file, place, found in lines_of(files, pattern, where, inside):
                now = change(found)
                if now is not None and now != found[0]:
                    yield put(name, files, file, place, *now.split("\n"))

        self.kind(name)(make)

    def mutants(self, files: Files, each: int) -> Iterator[Mutant]:
        """Of every kind at most `each`, spread over the places there are."""
        for make in self.values():
            found = list(make(files))
            step = max(1, len(found) // each)
            yield from found[::step][:each]


def lines_of(
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


def put(name: str, files: Files, file: str, place: int, *now: str, gone: int = 1) -> Mutant:
    """The file with `gone` lines from a place on replaced; what a new line calls is imported."""
    lines = files[file].splitlines()
    was = "\n".join(lines[place : place + gone])
    changed = [*lines[:place], *now, *lines[place + gone :]]
    touched = tuple(range(place + 1, place + 1 + max(1, len(now))))
    text = _imported("\n".join(changed) + "\n", " ".join(now))
    return Mutant(name, file, text, touched, was, "\n".join(now))


def _imported(text: str, now: str) -> str:
    """Names that the file did not need before, beside those that it imports: no line moves."""
    for name in sorted(set(re.findall(r"\b(all_reduce_max|all_reduce|all_gather|reduce_scatter|return_rows)\(", now))):
        if not re.search(rf"^    {name},|import .*\b{name}\b", text, re.MULTILINE):
            text = re.sub(
                r"^(from moec\.runtime import[^)]*?\b)Weight\b", rf"\1Weight, {name}", text, count=1, flags=re.M
            )
    if "torch." in now and not re.search(r"^import torch$", text, re.MULTILINE):
        text = text.replace("import torch.nn.functional as F", "import torch, torch.nn.functional as F", 1)
    return text
