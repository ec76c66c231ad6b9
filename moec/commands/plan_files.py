"""Plans as files: `moec fmt` writes them in their canonical form, `moec new` writes one to start from."""

import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from moec.commands.replace_file import replace_file
from moec.commands.tell import put, say
from moec.dsl import Diagnostic, PlanError
from moec.dsl.diagnostics import plan_error
from moec.dsl.format_plan import format_plan
from moec.dsl.text import MOST_BYTES, read_bytes, source_of

STANDARD_INPUT = "-"
_STARTER = "starter.plan"
_STARTER_NAME = "my_model"


def format_files(paths: Sequence[str], check: bool) -> int:
    """Format each plan, `-` from standard input to standard output; with `check` only say which would change.

    Returns the exit status. Raises PlanError with the faults of all plans, once those without are done.
    """
    faults: list[Diagnostic] = []
    changed = 0
    for path in paths:
        try:
            changed += _format_input(check) if path == STANDARD_INPUT else _format_file(path, check)
        except PlanError as fault:
            faults += fault.diagnostics
    if faults:
        raise PlanError(faults)
    return 1 if check and changed else 0


def _format_input(check: bool) -> bool:
    data = sys.stdin.buffer.read(MOST_BYTES + 1)
    text = format_plan(source_of("standard input", data))
    if not check:
        put(text)
    elif text.encode() != data:
        say("standard input would change")
    return text.encode() != data


def _format_file(path: str, check: bool) -> bool:
    """Whether the file is, or would be, another than before."""
    data = read_bytes(path)
    text = format_plan(source_of(path, data)).encode()
    if text == data:
        return False
    if not check:
        _replace(path, text)
    say(f"{path} would change" if check else f"{path} is formatted")
    return True


def _replace(path: str, data: bytes) -> None:
    try:
        replace_file(Path(path), data)
    except OSError as fault:
        raise plan_error(
            "E506", f"`{path}` cannot be written: {fault.strerror}", _remedy(Path(path).resolve())
        ) from None


def write_starter(name: str | None, output: str | None) -> Path:
    """Write the starter plan to `output`, or to NAME.plan; raises PlanError if something is there already."""
    path = Path(output if output is not None else f"{name or _STARTER_NAME}.plan")
    title = name or (path.stem if path.stem.isidentifier() and path.stem.isascii() else _STARTER_NAME)
    if not (title.isidentifier() and title.isascii()):
        help = "take letters, digits and underscores, a letter first: `moec new my_model`"
        raise plan_error("E113", f"`{title}` cannot be the name of a model", help)
    text = files("moec.dsl").joinpath(_STARTER).read_text(encoding="utf-8").replace(_STARTER_NAME, title)
    try:
        with open(path, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        help = "name another model, or another file: -o FILE"
        raise plan_error("E505", f"`{path}` is there already, and stays as it is", help) from None
    except (OSError, ValueError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
        raise plan_error("E506", f"`{path}` cannot be written: {reason}", _remedy(path)) from None
    return path


def _remedy(path: Path) -> str:
    folder = path.absolute().parent
    if not folder.is_dir():
        return f"make the folder first: mkdir -p {path.parent}"
    return f"let its folder be written to: chmod u+w {path.parent}"
