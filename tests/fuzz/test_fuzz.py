"""Whatever it is given, moec reads a plan or answers with coded diagnostics, and nothing else.

    pytest -m sweep tests/fuzz/test_fuzz.py --cases 100000

A case that fails is cut down and written to `build/fuzz/`; put its files into `tests/fuzz/cases/` with the mend.
"""

import contextlib
import io
from pathlib import Path

import pytest
from case_files import CASES, cut_down, read_case, write_case
from draw_case import Case, case, command_line
from judge import Wrong, check_said, judge

from moec.dsl import PlanError
from moec.dsl.diagnostics import Severity
from moec.options import parse_options


def sweep(first: int, count: int, folder: Path) -> str:
    """Judge so many cases; says how much work the longest was."""
    longest, failed, plans = (0, first), [], 0
    for seed in range(first, first + count):
        try:
            calls, plan = judge(case(seed), folder)
            longest, plans = max(longest, (calls, seed)), plans + (plan is not None)
        except Wrong as fault:
            path = write_case(cut_down(case(seed), folder), f"seed_{seed}")
            failed.append(f"{path}: {fault}")
    assert not failed, "\n".join(failed)
    return f"{count} cases, {plans} of them plans; the longest took {longest[0]:,} calls: seed {longest[1]}"


@pytest.mark.parametrize("path", sorted(CASES.glob("*.plan")), ids=lambda path: path.stem)
def test_case(path: Path, tmp_path: Path) -> None:
    """What broke once."""
    judge(read_case(path), tmp_path)


def test_slice(tmp_path: Path) -> None:
    sweep(0, 400, tmp_path)


@pytest.mark.sweep
def test_sweep(tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    said = sweep(0, request.config.getoption("--cases"), tmp_path)
    with capsys.disabled():
        print(f"\n{said}")


def command_lines(count: int) -> None:
    for seed in range(count):
        words = command_line(seed)
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                parse_options(words)
        except PlanError as fault:
            check_said(fault.diagnostics, Severity.ERROR, Case(b"", tuple(words)))
        except SystemExit as ended:
            assert ended.code == 0 and said.getvalue(), words


def test_command_lines() -> None:
    command_lines(400)


@pytest.mark.sweep
def test_sweep_of_command_lines(request: pytest.FixtureRequest) -> None:
    command_lines(request.config.getoption("--cases"))
