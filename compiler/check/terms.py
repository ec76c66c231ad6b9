"""Values of a rank program as terms: what was done to what. Two values are the same where their terms are.

A term says nothing of the rank that has it, so the members of a group that hold parts of one value hold one term.
Terms are kept once each: comparing two is comparing identities.
"""

import sys
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from types import CodeType
from typing import TypeAlias

What: TypeAlias = tuple[object, ...]
"""All that a term has beside its parts: names, groups, dims."""

Trail: TypeAlias = tuple[tuple[CodeType, int], ...]
"""Code and place in it, of calls that led to one another."""


@dataclass(frozen=True, slots=True)
class Site:
    """A line of an emitted file, and those of the calls that led there."""

    file: str
    line: int
    text: str = ""
    callers: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: `{self.text}`" if self.text else f"{self.file}:{self.line}"
        callers = ", ".join(f"{file}:{line}" for file, line in self.callers)
        return f"{place}, called from {callers}" if callers else place


class Term:
    """A value. `grad` says that it carries a gradient, `weight` that the gradient goes into a weight's buffer."""

    __slots__ = ("grad", "kind", "number", "parts", "terms", "trail", "weight", "what")

    def __init__(
        self, terms: "Terms", kind: str, what: What, parts: tuple["Term", ...], grad: bool, weight: bool, number: int
    ) -> None:
        self.terms, self.kind, self.what, self.parts = terms, kind, what, parts
        self.grad, self.weight, self.number = grad, weight, number
        self.trail: Trail = ()  # where it was made first

    def __add__(self, other: "Term") -> "Term":
        total = self.terms.sum((self, other))
        total.trail = total.trail or self.terms.trail()
        return total

    @property
    def site(self) -> Site | None:
        """The line that made it first."""
        return self.terms.site_of(self.trail)

    def to(self, _: object) -> "Term":
        """In another precision: the same value."""
        return self

    def __str__(self) -> str:
        match self.kind, self.what:
            case "run", (name, _, place):
                return f"`{name}`" if place == 0 else f"`{name}`, result {place},"
            case "gradient", (name, *_):
                return f"the backward of `{name}`"
            case "weight", names:
                return " and ".join(str(name) for name in names)
            case "input", (name, _, i):
                return f"{name} of micro-batch {i}"
            case kind, (group, tuple() as dims):
                return " ".join([f"{kind} over {group}", *(f"{name}={dim}" for name, dim in dims)])
            case kind, _:
                return f"a {kind}"


@dataclass(slots=True)
class Terms:
    """All terms of one check. `texts` are the lines of the files that run, by name."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    _known: dict[tuple[str, What, tuple[int, ...]], Term] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._known)

    def trail(self) -> Trail:
        """The running frames of those texts, the innermost first; their lines are looked up when they are asked for."""
        frame = sys._getframe(1)
        found: list[tuple[CodeType, int]] = []
        while frame is not None:
            if frame.f_code.co_filename in self.texts:
                found.append((frame.f_code, frame.f_lasti))
            frame = frame.f_back
        return tuple(found)

    def here(self) -> Site | None:
        """The innermost line of those texts that is running."""
        return self.site_of(self.trail())

    def site_of(self, trail: Trail) -> Site | None:
        if not trail:
            return None
        (file, line), *callers = [(code.co_filename, _line(code, place)) for code, place in trail]
        text = self.texts[file][line - 1].partition("  # ")[0].strip()
        return Site(file, line, text, tuple(callers))

    def everything(self) -> list[Term]:
        """In the order in which they were made."""
        return list(self._known.values())

    def make(
        self, kind: str, what: What = (), parts: Iterable[Term] = (), grad: bool = False, weight: bool = False
    ) -> Term:
        parts = tuple(parts)
        key = kind, what, tuple([part.number for part in parts])
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Term(self, kind, what, parts, grad, weight, len(self._known))
        return found

    def sum(self, terms: Iterable[Term]) -> Term:
        """Of two or more, in any order and grouping."""
        flat = [part for term in terms for part in (term.parts if term.kind == "sum" else (term,))]
        flat.sort(key=lambda term: term.number)
        return flat[0] if len(flat) == 1 else self.make("sum", (), flat, grad=any(term.grad for term in flat))


def _line(code: CodeType, place: int) -> int:
    """The line of an instruction."""
    lines = (line for start, end, line in code.co_lines() if start <= place < end)
    return next(lines, None) or code.co_firstlineno


def below(term: Term, known: Container[int] = ()) -> Iterator[Term]:
    """A term and all that it is made of, each once, parts before what is made of them; nothing below the known ones."""
    seen: set[int] = set()
    stack: list[tuple[Term, bool]] = [(term, False)]
    while stack:
        found, ready = stack.pop()
        if ready:
            yield found
        elif found.number not in seen and found.number not in known:
            seen.add(found.number)
            stack.append((found, True))
            stack += [(part, False) for part in reversed(found.parts)]
