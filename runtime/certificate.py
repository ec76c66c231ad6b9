"""certificate.json: what was proved of a folder of rank programs, bound by hash to the files that it was proved of."""

import io
import json
import re
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

CERTIFICATE = "certificate.json"

_SILENT = (tokenize.COMMENT, tokenize.NL)


@dataclass(frozen=True, slots=True)
class Digests:
    """Of a folder's files. What computes is apart from the sizes it computes with: it may be proved at others."""

    bodies: str  # of the stages' files, their comments aside
    sizes: str  # of sizes.py, its comments aside
    ranks: str  # of the rank files, one after the other
    job: str  # of plan.json
    main: str  # of main.py


def digests_of(files: Mapping[str, str]) -> Digests:
    """Of the files of a folder, name to text."""
    ranks = [digest(files[name]) for name in sorted(files) if name.startswith("rank_")]
    return Digests(
        digest_of_bodies(files),
        digest(words_of(files["sizes.py"])),
        joined(ranks),
        digest(files["plan.json"]),
        digest(files["main.py"]),
    )


def digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def joined(digests: Iterable[str]) -> str:
    return digest("\n".join(digests))


def digest_of_bodies(files: Mapping[str, str]) -> str:
    """Of the stages among these files. A comment says bytes, which are the sizes' matter."""
    names = sorted(name for name in files if name.startswith("stage_"))
    return joined(f"{name} {digest(words_of(files[name]))}" for name in names)


def words_of(text: str) -> str:
    """A Python text without its comments and empty lines; as it is where it is none."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return text
    return "\n".join([f"{token.type} {token.string}" for token in tokens if token.type not in _SILENT])


@dataclass(frozen=True, slots=True)
class Local:
    """The files that one rank runs, as it finds them on its machine."""

    shared: Mapping[str, str]  # stages, sizes.py, plan.json and main.py
    rank: str  # its own file

    @property
    def digest(self) -> str:
        """Equal on two ranks if all but their own files are."""
        return joined(f"{name} {digest(text)}" for name, text in sorted(self.shared.items()))

    @property
    def card(self) -> str:
        """What others are told of its own file: digest, stage, and digest of the calls of its schedule."""
        stage = re.search(r"^import (stage_\d+)", self.rank, re.MULTILINE)
        calls = re.findall(r"(?:run|stage)\.\w+|range\(\d+\)", self.rank.partition("def step(")[2])
        return f"{digest(self.rank)}/{stage[1] if stage else ''}/{digest(' '.join(calls))}"

    @staticmethod
    def read(folder: Path, rank_file: str) -> "Local":
        names = [*sorted(path.name for path in folder.glob("stage_*.py")), "sizes.py", "plan.json", "main.py"]
        return Local({name: _text(folder / name) for name in names}, _text(folder / rank_file))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def mixed(cards: Sequence[str]) -> str:
    """Which ranks of one stage have schedules that do not fit together, or ""."""
    schedules: dict[str, dict[str, list[int]]] = {}
    for rank, card in enumerate(cards):
        _, stage, calls = card.split("/")
        schedules.setdefault(stage, {}).setdefault(calls, []).append(rank)
    for stage, found in schedules.items():
        if len(found) > 1:
            few, *_, many = sorted(found.values(), key=len)
            return (
                f"rank {few[0]} has another schedule than rank {many[0]}, and both run {stage}: of different compiles?"
            )
    return ""


def warning(folder: Path, local: Local, cards: Sequence[str]) -> str:
    """Why the folder's certificate does not speak for what runs, or ""; `cards` are those of all ranks, in order."""
    path = folder / CERTIFICATE
    if not path.exists():
        return f"nothing says that these programs were ever checked: there is no {CERTIFICATE}"
    try:
        certificate = json.loads(_text(path))
        stated = Digests(**certificate["programs"])
        passed = certificate["passed"]
    except (ValueError, TypeError, KeyError, OSError):
        return f"{CERTIFICATE} cannot be read"
    files = local.shared
    found = {
        "the stage files": (stated.bodies, digest_of_bodies(files)),
        "sizes.py": (stated.sizes, digest(words_of(files["sizes.py"]))),
        "the rank files": (stated.ranks, joined(card.partition("/")[0] for card in cards)),
        "plan.json": (stated.job, digest(files["plan.json"])),
        "main.py": (stated.main, digest(files["main.py"])),
    }
    stale = [name for name, (then, now) in found.items() if then != now]
    if stale:
        return f"{' and '.join(stale)} changed since these programs were checked"
    return "" if passed else "these programs did not pass their proof"
