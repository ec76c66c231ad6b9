"""The log of a run is whole at any time, goes on where a run is resumed, and takes no other file's place."""

import errno
import io
import json
import os

import pytest

from moec.runtime.data import DataFault
from moec.runtime.log import check_log, open_log


def test_a_resumed_run_goes_on_in_its_log(tmp_path):
    path = tmp_path / "m.jsonl"
    log = open_log(str(path), 0)
    for step in range(1, 6):
        log.write({"step": step, "loss": 1.5, "run": 1})
    log.write({"step": 4, "held_out_loss": 1.0})
    log.close()
    with open(path, "a") as file:
        file.write('{"step": 6, "lo')  # as one that was killed leaves it
    check_log(str(path), goes_on=True)
    resumed = open_log(str(path), 3)
    before = path.read_text()
    resumed.write({"step": 4, "loss": 1.5, "run": 2})
    resumed.close()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(record["step"], record["run"]) for record in records] == [(1, 1), (2, 1), (3, 1), (4, 2)]
    assert path.read_text().startswith(before)
    assert [file.name for file in tmp_path.iterdir()] == ["m.jsonl"]


def test_a_link_to_a_log_stays_one(tmp_path):
    (tmp_path / "real.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    (tmp_path / "m.jsonl").symlink_to(tmp_path / "real.jsonl")
    open_log(str(tmp_path / "m.jsonl"), 1).close()
    assert (tmp_path / "real.jsonl").read_text() == '{"step": 1, "loss": 2.0}\n'


METRICS = b'{"step": 1, "loss": 2.0}\n{"step": 1, "held_out_loss": 2.5}\n'
OTHERS = [
    b"a note\n",
    b"notes",
    b'{"loss": 1}\n',
    b'[{"step": 1}]\n',
    b'{"step": 1, "image": 3}\n',
    b"\xff\xfe\x00\x01",
    b"\n",
    METRICS + b"a note\n" + METRICS,
    METRICS + b"a note",
]


@pytest.mark.parametrize("content", OTHERS)
@pytest.mark.parametrize("goes_on", [True, False])
def test_a_file_of_something_else_stays(tmp_path, content, goes_on):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(DataFault, match="holds something else than metrics: name another file"):
        check_log(str(path), goes_on)
    assert path.read_bytes() == content


def test_the_metrics_of_another_run_stay(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(METRICS)
    with pytest.raises(DataFault, match="holds the metrics of another run: name another file"):
        check_log(str(path), goes_on=False)
    check_log(str(path), goes_on=True)
    assert path.read_bytes() == METRICS


def test_a_new_run_begins_a_new_log(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    for name, after in (("empty.jsonl", 0), ("none.jsonl", 5)):
        path = tmp_path / name
        check_log(str(path), goes_on=False)
        log = open_log(str(path), after)
        log.write({"step": 6, "loss": 1.0})
        log.close()
        assert path.read_text() == '{"step": 6, "loss": 1.0}\n'


def test_a_run_that_is_restarted_from_its_first_step_keeps_what_was(tmp_path):
    path = tmp_path / "m.jsonl"
    for n in range(1, 3):
        path.write_bytes(METRICS)
        open_log(str(path), 0).close()
        assert path.read_bytes() == b"" and (tmp_path / f"m.jsonl.{n}").read_bytes() == METRICS


def test_a_place_that_cannot_be_written(tmp_path):
    for path, why in ((tmp_path / "no" / "m.jsonl", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(DataFault, match=f"cannot be written: {why}"):
            check_log(str(path), goes_on=False)
    check_log("/dev/null", goes_on=False)


def test_training_goes_on_where_the_disk_is_full(tmp_path, capsys):
    log = open_log(str(tmp_path / "m.jsonl"), 0)
    log.write({"step": 1})

    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    log._file.close()
    log._file = Full()
    for step in (2, 3):
        log.write({"step": step})
    log.close()
    (said,) = capsys.readouterr().err.splitlines()
    assert said == f"warning: {tmp_path / 'm.jsonl'} is not written any more: No space left on device"


def test_a_pipe_is_no_log(tmp_path):
    """Whose other end no one may ever open."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataFault, match="pipe is a pipe, and metrics go to a file"):
        check_log(str(tmp_path / "pipe"), goes_on=False)
