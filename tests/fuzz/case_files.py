"""Cases that failed, as files: cut down where they were found, and kept in `cases/` once they are mended."""

import json
from pathlib import Path

from draw_case import ROOT, Case
from judge import Wrong, judge

CASES = Path(__file__).parent / "cases"
FAILED = ROOT / "build" / "fuzz"
MOST_TRIES = 300
"""Of cutting a case down, each of which may be slow."""


def read_case(path: Path) -> Case:
    """A plan, and beside it its overrides as a list in JSON, if it has any."""
    overrides = path.with_suffix(".json")
    return Case(path.read_bytes(), tuple(json.loads(overrides.read_text())) if overrides.exists() else ())


def write_case(case: Case, stem: str) -> Path:
    FAILED.mkdir(parents=True, exist_ok=True)
    path = FAILED / f"{stem}.plan"
    path.write_bytes(case.plan)
    if case.overrides:
        path.with_suffix(".json").write_text(json.dumps(case.overrides) + "\n")
    return path


def fails(case: Case, folder: Path) -> bool:
    try:
        judge(case, folder)
    except Wrong:
        return True
    return False


def cut_down(case: Case, folder: Path) -> Case:
    """The case without most of the pieces that it fails without."""
    size, tries = max(1, len(case.plan) // 2), 0
    while size and tries < MOST_TRIES:
        for at in range(0, len(case.plan), size):
            tries += 1
            smaller = Case(case.plan[:at] + case.plan[at + size :], case.overrides)
            if fails(smaller, folder):
                case = smaller
                break
        else:
            size //= 2
    return case
