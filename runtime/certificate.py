"""certificate.json: what was proved of a folder of rank programs, bound by hash to the files that it was proved of."""

import io
import json
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
    sizes: str
    ranks: str  # of the rank files, one after the other
    job: str  # of plan.json


def digests_of(files: Mapping[str, str]) -> Digests:
    """Of the files of a folder, name to text."""
    ranks = [digest(files[name]) for name in sorted(files) if name.startswith("rank_")]
    return Digests(digest_of_bodies(files), digest(files["sizes.py"]), joined(ranks), digest(files["plan.json"]))


def digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def joined(digests: Iterable[str]) -> str:
    return digest("\n".join(digests))


def digest_of_bodies(files: Mapping[str, str]) -> str:
    """Of the stages among these files. A comment says bytes, which are the sizes' matter."""
    names = sorted(name for name in files if name.startswith("stage_"))
    return joined(f"{name} {digest(_words(files[name]))}" for name in names)


def _words(text: str) -> str:
    """A Python text without its comments and empty lines; as it is where it is none."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return text
    return "\n".join([f"{token.type} {token.string}" for token in tokens if token.type not in _SILENT])


@dataclass(frozen=True, slots=True)
class Local:
    """The files that one rank runs, as it finds them on its machine."""

    shared: Mapping[str, str]  # stages, sizes.py and plan.json
    rank: str  # digest of its own file

    @property
    def digest(self) -> str:
        """Equal on two ranks if all but their own files are."""
        return joined(f"{name} {digest(text)}" for name, text in sorted(self.shared.items()))

    @staticmethod
    def read(folder: Path, rank_file: str) -> "Local":
        names = [*sorted(path.name for path in folder.glob("stage_*.py")), "sizes.py", "plan.json"]
        return Local({name: _text(folder / name) for name in names}, digest(_text(folder / rank_file)))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def warning(folder: Path, local: Local, ranks: Sequence[str]) -> str:
    """Why the folder's certificate does not speak for what runs, or ""; `ranks` are the digests of all rank files."""
    path = folder / CERTIFICATE
    if not path.exists():
        return f"nothing says that these programs were ever checked: there is no {CERTIFICATE}"
    try:
        certificate = json.loads(_text(path))
        stated = Digests(**certificate["programs"])
        proved, runs = certificate["static"]["proved"], certificate["numbers"]
        different = [run for run in runs if run["bodies"] == stated.bodies and not run["equal"]]
    except (ValueError, TypeError, KeyError, OSError):
        return f"{CERTIFICATE} cannot be read"
    files = local.shared
    found = {
        "the stage files": (stated.bodies, digest_of_bodies(files)),
        "sizes.py": (stated.sizes, digest(files["sizes.py"])),
        "the rank files": (stated.ranks, joined(ranks)),
        "plan.json": (stated.job, digest(files["plan.json"])),
    }
    stale = [name for name, (then, now) in found.items() if then != now]
    if stale:
        return f"{' and '.join(stale)} changed since these programs were checked"
    if different:
        return "these programs were found to differ from the model"
    return "" if proved or runs else "these programs did not pass their check"
