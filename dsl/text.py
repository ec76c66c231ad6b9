"""Reads a plan's file into a Source, or says why there is no text in it."""

import os
import stat

from moec.dsl.diagnostics import PlanError, plan_error
from moec.dsl.source import Place, Source, Span
from moec.dsl.suggest import nearest

MOST_BYTES = 64 * 1024


def read_source(path: str) -> Source:
    """The text of a plan, line ends as `\\n` and without a byte-order mark; raises PlanError."""
    return source_of(path, read_bytes(path))


def source_of(path: str, data: bytes) -> Source:
    """The same of what was read already; `path` is what messages call it."""
    if len(data) > MOST_BYTES:
        raise plan_error(
            "E002", f"`{path}` is longer than a plan can be", f"a plan has at most {MOST_BYTES // 1024} KiB"
        )
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise plan_error("E003", f"`{path}` is UTF-16, not UTF-8", "save it as UTF-8")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise _undecodable(path, data, fault.start) from None
    return Source(path, text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"))


def read_bytes(path: str) -> bytes:
    """What a file holds, at most one byte more than a plan can have; raises PlanError."""
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise plan_error("E001", f"`{path}` is a folder, not a plan", *_plans_in(path))
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise plan_error("E001", f"`{path}` is not a file", "a plan is a text file, such as my.plan")
        with open(path, "rb") as file:
            return file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise plan_error("E001", f"there is no plan `{path}`", *_similar(path)) from None
    except PermissionError:
        raise plan_error("E001", f"`{path}` may not be read", f"allow it: chmod u+r {path}") from None
    except (OSError, ValueError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
        raise plan_error("E001", f"`{path}` cannot be read: {reason}", "name a file, such as my.plan") from None


def _plans_in(folder: str) -> tuple[str, ...]:
    try:
        plans = sorted(name for name in os.listdir(folder) if name.endswith(".plan"))
    except OSError:
        plans = []
    return (f"name a plan in it: {', '.join(plans[:8])}",) if plans else ("name a file, such as my.plan",)


def _similar(path: str) -> tuple[str, ...]:
    folder, name = os.path.split(path)
    try:
        close = nearest(name, (entry for entry in os.listdir(folder or ".") if entry.endswith(".plan")))
    except OSError:
        return (f"the folder `{folder}` does not exist either",)
    return (f"did you mean `{os.path.join(folder, close)}`?",) if close else ("a plan is a text file, such as my.plan",)


def _undecodable(path: str, data: bytes, start: int) -> PlanError:
    before = data[:start].decode("utf-8")
    source = Source(path, before + data[start:].decode("utf-8", "replace"))
    label = Place(source, Span(len(before), len(before) + 1)).label(f"byte 0x{data[start]:02x}")
    return plan_error("E003", "the plan is not UTF-8 text", "save it as UTF-8", label=label)
