"""The output folder: whole or not there, and never at the cost of what moec did not write."""

import errno
import os
from pathlib import Path

import pytest
from count_calls import count_calls

from moec.compiler import folder as folder_module
from moec.compiler.folder import check_folder, write_folder
from moec.dsl import PlanError


def held(path: Path) -> dict[str, str]:
    return {entry.name: entry.read_text() for entry in path.iterdir() if entry.name != ".moec"}


def refused(path: Path) -> str:
    with pytest.raises(PlanError) as caught:
        write_folder(path, {"main.py": ""})
    return caught.value.diagnostics[0].code


def test_replaces_its_own_output(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    write_folder(out, {"rank_0.py": "0", "rank_1.py": "1"})
    (out / "__pycache__").mkdir()
    (out / "rank_1.py").unlink()
    write_folder(out, {"rank_0.py": "new"})
    assert held(out) == {"rank_0.py": "new"}
    assert [path.name for path in out.parent.iterdir()] == ["b"]


def test_takes_an_empty_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, {"main.py": "x"})
    assert held(tmp_path) == {"main.py": "x"}


def test_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write_folder(tmp_path / "link", {"main.py": "x"})
    assert held(tmp_path / "real") == {"main.py": "x"} and (tmp_path / "link").is_symlink()


def test_spares_what_it_did_not_write(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", {"main.py": "x"})
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert refused(tmp_path / "out") == "E503"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "main.py").write_text("mine")
    assert refused(tmp_path / "other") == "E503"
    assert held(tmp_path / "other") == {"main.py": "mine"}


def test_spares_programs_that_were_edited(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", {"main.py": "x", "certificate.json": "{}"})
    (tmp_path / "out" / "certificate.json").write_text("{ }")
    write_folder(tmp_path / "out", {"main.py": "x"})
    (tmp_path / "out" / "main.py").write_text("mine")
    assert refused(tmp_path / "out") == "E503"
    assert held(tmp_path / "out") == {"main.py": "mine"}
    (tmp_path / "out" / "main.py").write_text("x")
    write_folder(tmp_path / "out", {"main.py": "y"})
    assert held(tmp_path / "out") == {"main.py": "y"}


def test_replaces_what_an_older_moec_wrote(tmp_path: Path) -> None:
    """Whose manifest has names and no digests."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".moec").write_text("main.py\nrank_0.py\n")
    (tmp_path / "out" / "main.py").write_text("old")
    write_folder(tmp_path / "out", {"main.py": "x"})
    assert held(tmp_path / "out") == {"main.py": "x"}


def test_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    assert (
        refused(tmp_path / "file") == refused(tmp_path / "file" / "in" / "it") == refused(tmp_path / "link") == "E501"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert refused(tmp_path / "out") == "E502"
    tmp_path.chmod(0o700)


def test_a_full_disk_leaves_the_old_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "out", {"main.py": "old"})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder_module, "_swap", full)
    assert refused(tmp_path / "out") == "E502"
    assert held(tmp_path / "out") == {"main.py": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_interrupt_leaves_the_old_output(tmp_path: Path) -> None:
    class Interrupting(dict[str, str]):
        def items(self):  # type: ignore[override]
            yield "main.py", "half"
            raise KeyboardInterrupt

    write_folder(tmp_path / "out", {"main.py": "old"})
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "out", Interrupting())
    assert held(tmp_path / "out") == {"main.py": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_compiles_do_not_mix(tmp_path: Path) -> None:
    """In two processes: a process is what a compile is, and names its folders after itself."""
    children = []
    for letter in "ab":
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for _ in range(20):
                    write_folder(tmp_path / "out", {f"rank_{rank}.py": letter for rank in range(30)})
                status = 0
            finally:
                os._exit(status)  # also after a fault: the child must not go on as a second test run
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert len(set(held(tmp_path / "out").values())) == 1 and len(held(tmp_path / "out")) == 30
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_more_is_the_same_work_again(tmp_path: Path) -> None:
    """Not more the more there are."""

    def calls(count: int) -> int:
        folder = tmp_path / str(count)
        return count_calls(lambda: write_folder(folder, {f"rank_{rank:05}.py": "x" for rank in range(count)}))

    few, some, many = calls(20), calls(40), calls(80)
    assert 0 < many - some <= 2 * (some - few) + 20


def test_check_writes_nothing(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
