"""What is wrong with rank programs, as the check says it."""

from collections.abc import Iterable
from dataclasses import dataclass

from moec.compiler.check.terms import Site

CHECKS = {
    "text": "the text says only what an emitted program says",
    "groups": "ranks, groups and neighbours fit together",
    "tables": "weights, inputs and what arrives are those of the program",
    "slices": "the slices of every weight are those of the rank's place",
    "meeting": "calls meet their peers",
    "deadlock": "no rank waits for ever",
    "values": "what a step leaves behind is what the program makes",
    "gradients": "gradients are summed once over the ranks where they differ, found without types",
}
"""The parts of the check, in the order in which they look."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: which check found it, where, in a line or a few."""

    check: str  # one of CHECKS
    message: str
    site: Site | None = None
    by_numbers: bool = False  # whether runs can show that it does not matter: another way to compute the same

    def __str__(self) -> str:
        return f"{self.site}: {self.message}" if self.site is not None else self.message


def to_tell(faults: Iterable[Fault], most: int = 3) -> list[Fault]:
    """Those to show a person: none twice, and the first of each part of the check before the others."""
    once = list(dict.fromkeys(faults))
    firsts = [next(fault for fault in once if fault.check == check) for check in {fault.check: 0 for fault in once}]
    return [*firsts, *(fault for fault in once if fault not in firsts)][:most]


class Wrong(Exception):
    """Raised where a program cannot go on."""

    def __init__(self, check: str, message: str, site: Site | None = None, by_numbers: bool = False) -> None:
        super().__init__(message)
        self.fault = Fault(check, message, site, by_numbers)
