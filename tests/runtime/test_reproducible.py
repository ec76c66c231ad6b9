"""The same plan, seed and mesh give the same bits: twice, and after a resume, in whose log the run goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SAME = ("step", "loss", "lr", "grad_norm", "tokens")


def torchrun(processes, script, *arguments):
    path = os.pathsep.join([str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": path}
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--standalone", "--", str(script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    return done.stdout


def test_twice_and_after_a_resume(tiny, tmp_path):
    made = tiny(1, 2, precision="fp32")
    plan = made.folder / "plan.json"
    plan.write_text(plan.read_text().replace('"warmup": 0, "decay": "constant"', '"warmup": 3, "decay": "cosine"'))
    plan.write_text(plan.read_text().replace('"steps": null', '"steps": 6'))
    program, data = made.folder / "main.py", ("--data", str(HERE / "conftest.py"), "--deterministic")
    logs, saved = [tmp_path / f"{n}.jsonl" for n in range(2)], str(tmp_path / "saved")
    said = torchrun(4, program, *data, "--log", str(logs[0]))
    torchrun(4, program, *data, "--log", str(logs[1]), "--save", saved, "--every", "2")
    once, twice = (steps_of(log) for log in logs)
    assert [each["step"] for each in once] == [1, 2, 3, 4, 5, 6]  # the plan says at which step it ends
    assert bits(once) == bits(twice)
    assert [round(each["lr"], 9) for each in once] == [0.003333333, 0.006666667, 0.01, 0.0075, 0.0025, 0.0]
    for each in once:
        parts = each["compute"] + each["communication"] + each["data"]
        assert parts <= each["seconds"] * 1.001 or each["compute"] == 0
        assert each["communication"] > 0 and each["memory"] > 1 << 20
        assert each["tokens_per_second"] == each["tokens"] / each["seconds"]
    first, *_, summary, parts, where = said.splitlines()
    assert first.startswith("step 1/6  loss ") and first.endswith(" left")
    assert summary.startswith("6 steps in ") and f"loss {once[0]['loss']:.4f} -> {once[-1]['loss']:.4f}" in summary
    assert parts.startswith("a step takes ") and where == f"metrics: {logs[0]}: moec plot {logs[0]}"

    lines = logs[0].read_text().splitlines(keepends=True)
    (step_four,) = [folder for folder in Path(saved).iterdir() if folder.name.endswith("4")]
    said = torchrun(4, program, *data, "--log", str(logs[0]), "--resume", str(step_four))
    assert logs[0].read_text().splitlines(keepends=True)[:4] == lines[:4]
    assert bits(steps_of(logs[0])) == bits(once)
    assert "step 5/6" in said and "step 1/6" not in said


def steps_of(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def bits(steps):
    """Floats with all their digits, as JSON has them."""
    return [[repr(each[name]) for name in SAME] for each in steps]
