"""What is wrong with rank programs, as the check says it."""

from dataclasses import dataclass

from moec.compiler.check.terms import Site


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: which check found it, where, in a line or a few."""

    check: str  # text, groups, meeting, values, gradients or slices
    message: str
    site: Site | None = None

    def __str__(self) -> str:
        return f"{self.site}: {self.message}" if self.site is not None else self.message


class Wrong(Exception):
    """Raised where a program cannot go on."""

    def __init__(self, check: str, message: str, site: Site | None = None) -> None:
        super().__init__(message)
        self.fault = Fault(check, message, site)
