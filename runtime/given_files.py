"""Which file has which tensor of the weights that a plan starts from, and how machines see that theirs are alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from safetensors import SafetensorError, safe_open

from moec.checkpoint.plain_json import parse_json
from moec.runtime.module_values import ModelFault

_INDEX = ".safetensors.index.json"
_WHOLE = 64 << 20  # bytes of a file of which all are looked at
_SAMPLES, _SAMPLE = 1024, 4096  # places in a longer one, and bytes at each


@dataclass(frozen=True, slots=True)
class Given:
    """A tensor of a file."""

    file: Path
    shape: tuple[int, ...]
    dtype: str  # by safetensors


def given_tensors(path: Path) -> dict[str, Given]:
    """By name, of a file or a folder of them. Raises ModelFault where it is not plain which file counts."""
    index, files = _files(path)
    found: dict[str, Given] = {}
    for file in files:
        for name, given in _tensors(file).items():
            if name in found:
                both = f"{found[name].file.name} and {file.name}"
                raise _fault(f"{path} has {name!a} in two files, {both}: leave one there, or name a file")
            found[name] = given
    if index is not None:
        _check_index(path, index, found)
    return found


def fingerprint(path: Path) -> str:
    """Of the names, the sizes and the bytes of the files, which all ranks must find alike.

    Of a file above 64 MiB, of its begin and of a thousand places: weights of another training differ in all of them.
    """
    _, files = _files(path)
    return " ".join([f"{file.name} {file.stat().st_size} {_digest(file)}" for file in files])


def _files(path: Path) -> tuple[Mapping[str, str] | None, list[Path]]:
    """What an index says, if there is one, and the files: the one, or all of a folder but for hidden ones."""
    if path.is_file():
        return None, [path]
    if not path.is_dir():
        raise _fault(f"{path} is not there")
    indexes = sorted(file for file in path.glob(f"*{_INDEX}") if not file.name.startswith("."))
    files = sorted(file for file in path.glob("*.safetensors") if not file.name.startswith("."))
    if len(indexes) > 1:
        raise _fault(f"{path} has two indexes, {indexes[0].name} and {indexes[1].name}: leave one there")
    if not indexes and not files:
        raise _fault(f"{path} holds no .safetensors file")
    return (_index(indexes[0], files) if indexes else None), files


def _index(index: Path, files: Sequence[Path]) -> dict[str, str]:
    """The name of its file for every tensor."""
    try:
        tree = parse_json(index.read_bytes())
    except (ValueError, OSError):
        tree = None
    names = tree.get("weight_map") if isinstance(tree, dict) else None
    if not isinstance(names, dict):
        raise _fault(f"{index} is no index of safetensors files")
    there, found = {file.name for file in files}, dict[str, str]()
    for name, file in names.items():
        if not isinstance(file, str) or file not in there:
            raise _fault(f"{index} names {file!a}, which is no file beside it")
        found[name] = file
    return found


def _check_index(path: Path, index: Mapping[str, str], found: Mapping[str, Given]) -> None:
    """It says where the tensors are, of all of them and of no others."""
    actual = {name: given.file.name for name, given in found.items()}
    wrong = sorted(name for name in actual.keys() | index.keys() if actual.get(name) != index.get(name))
    if wrong:
        said, lies = index.get(wrong[0], "no file"), actual.get(wrong[0], "none")
        what = f"says that {wrong[0]!a} is in {said}, and it is in {lies}"
        raise _fault(f"the index in {path} is not of the files beside it: it {what}")


def _tensors(file: Path) -> dict[str, Given]:
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {name: Given(file, tuple(its.get_shape()), its.get_dtype()) for name, its in slices.items()}
    except (SafetensorError, OSError) as fault:
        raise _fault(f"{file} cannot be read: {fault}") from None


def _digest(file: Path) -> str:
    found, size = blake2b(digest_size=8), file.stat().st_size
    whole = size <= _WHOLE
    with file.open("rb") as opened:
        for i in range(-(-size // _SAMPLE) if whole else _SAMPLES):
            opened.seek(i * _SAMPLE if whole else i * (size - _SAMPLE) // (_SAMPLES - 1))
            found.update(opened.read(_SAMPLE))
    return found.hexdigest()


def _fault(what: str) -> ModelFault:
    return ModelFault(f"initial weights: {what}")
