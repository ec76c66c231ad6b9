"""Real processes read files of tokens ahead, and evaluate what is held out, as the ranks in one process do."""

import json
import random
import struct

import pytest
from test_distributed import torchrun

from moec.runtime.data import Documents, Wanted, open_data
from moec.runtime.evaluate import Evaluation, held_out_loss


def test_tokens_held_out_and_one_that_is_not_in_the_vocabulary(tiny, tmp_path):
    made = tiny(1, 1)
    rng = random.Random(0)
    ids = [rng.randrange(11) for _ in range(800)]
    path = tmp_path / "tokens" / "a.u16"
    path.parent.mkdir()
    path.write_bytes(struct.pack("<800H", *ids))
    data = open_data(made.job, Wanted(str(path), Documents(3), 0.2), 7)

    def program(rank, run):
        said = []
        for _ in range(3):
            rank.step(run)
            said.append({"step": run.step, "loss": run.result.loss})
            if run.step > 1:
                said.append({"step": run.step, "held_out_loss": held_out_loss(rank, run, evaluation)})
        return said

    evaluation = Evaluation(data.held_out, 24, 2, 3)
    expected = made.simulate(program, data.training)[0]
    arguments = ["--steps", "3", "--data", str(path.parent), "--separator", "3", "--held-out", "0.2"]
    arguments += ["--eval-every", "2", "--timeout", "60"]
    log = tmp_path / "metrics.jsonl"
    done = torchrun(2, made.folder / "main.py", *arguments, "--log", str(log))
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"step 3  held-out loss {expected[-1]['held_out_loss']:.4f}\n" in done.stdout
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    found = [{key: x for key, x in line.items() if key in ("step", "loss", "held_out_loss")} for line in lines]
    assert [line.keys() for line in found] == [line.keys() for line in expected]
    for line, true in zip(found, expected, strict=True):
        assert line == pytest.approx(true, rel=1e-12)

    ids[:600] = [11] * 600  # wherever the first step reads
    path.write_bytes(struct.pack("<800H", *ids))
    refused = torchrun(2, made.folder / "main.py", *arguments)
    assert refused.returncode != 0 and "SampleFault" not in refused.stderr
    assert refused.stderr.count("Traceback") <= 1  # torchrun's own
    lines = [line for line in refused.stderr.splitlines() if "token 11 at position " in line and "rank" in line]
    assert lines and all(f"{path}: token 11 at position " in line for line in lines), refused.stderr
    assert all("is not in the vocabulary of 11: read tokens that were made for it" in line for line in lines)
