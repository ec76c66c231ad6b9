"""What every example becomes, as files to read: `pytest tests/golden --update-golden` writes them anew."""

from collections.abc import Mapping
from pathlib import Path

from compiled import emitted

HERE = Path(__file__).parent


def test_example(example: Path, update_golden: bool) -> None:
    """The stages, the sizes, and the first and last rank."""
    files = _shown(emitted(example))
    folder = HERE / example.stem
    if update_golden:
        _write(folder, files)
    assert sorted(files) == sorted(path.name for path in folder.glob("*.py")), "run pytest with --update-golden"
    for name, text in files.items():
        assert text == (folder / name).read_text(encoding="utf-8"), f"{example.stem}/{name}"


def _shown(files: Mapping[str, str]) -> dict[str, str]:
    ranks = sorted(name for name in files if name.startswith("rank_"))
    names = {"sizes.py", ranks[0], ranks[-1], *(name for name in files if name.startswith("stage_"))}
    return {name: files[name] for name in sorted(names)}


def _write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.py"):
        path.unlink()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def test_readme_shows_what_is_emitted() -> None:
    """Every program text of the README stands in a stage of tiny_moe as it is."""
    readme = (HERE.parent.parent / "README.md").read_text(encoding="utf-8")
    stage = (HERE / "tiny_moe" / "stage_0.py").read_text(encoding="utf-8")
    texts = [text.partition("```")[0] for text in readme.split("```python\n")[1:]]
    assert any("def layer_forward(" in text for text in texts)
    assert all(text in stage for text in texts if "tape.run(" in text)
