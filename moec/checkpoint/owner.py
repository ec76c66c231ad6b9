"""Which run saves to a folder: the last to begin says so in a file, and any other that finds it gives way."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from moec.checkpoint.plain_json import parse_json, printable

OWNER = "saved_by.json"


@dataclass(frozen=True, slots=True)
class Owner:
    """A run, and where and when it was last started."""

    run: str  # an id
    host: str
    since: str

    @staticmethod
    def made(run: str, host: str) -> "Owner":
        return Owner(run, host, f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")

    def claim(self, folder: Path) -> None:
        """From here on it is this run that saves there. Raises OSError."""
        new = folder / f".{OWNER}.{self.run}"
        try:
            new.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
            new.replace(folder / OWNER)
        finally:
            with suppress(OSError):
                os.unlink(new)


def rival(run: str, folder: Path) -> str:
    """What to say if another run than this has come to save there, or "". Raises OSError."""
    try:
        text = (folder / OWNER).read_bytes()
    except FileNotFoundError:  # someone has cleared the folder
        return ""
    said = _said(text)
    if said["run"] == run:
        return ""
    return f"another run saves to {folder} now, from {said['host']} since {said['since']}"


def _said(text: bytes) -> dict[str, str]:
    try:
        tree = parse_json(text)
    except ValueError:
        tree = None
    found = tree if isinstance(tree, dict) else {}
    return {name: printable(str(found.get(name, "?"))) for name in ("run", "host", "since")}
