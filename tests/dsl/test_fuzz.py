"""A plan that is cut or changed anywhere is read, or is answered with diagnostics, and never with anything else."""

import random
from pathlib import Path

import pytest

from moec.dsl import PlanError, read_plan, render
from moec.dsl.show_mesh import show_mesh

LETTERS = '{}()[]=<>,"#\n _%+-*/.0123456789abeklpstxyzé\x00\t'
PLANS = ("tiny_moe", "sequence_parallel", "mixer_moe")


def survives(path: Path, text: str, *overrides: str) -> None:
    path.write_text(text, encoding="utf-8")
    try:
        plan = read_plan(str(path), overrides)
    except PlanError as fault:
        assert render(fault.diagnostics)
    else:
        assert show_mesh(plan)


@pytest.mark.parametrize("name", PLANS)
def test_cut_at_every_byte(tmp_path: Path, examples: Path, name: str) -> None:
    text = (examples / f"{name}.plan").read_text(encoding="utf-8")
    for end in range(len(text)):
        survives(tmp_path / "cut.plan", text[:end])


@pytest.mark.parametrize("name", PLANS)
def test_one_letter_changed(tmp_path: Path, examples: Path, name: str) -> None:
    text = (examples / f"{name}.plan").read_text(encoding="utf-8")
    draw = random.Random(name)
    for at in range(0, len(text), 2):
        survives(tmp_path / "changed.plan", text[:at] + draw.choice(LETTERS) + text[at + 1 :])


@pytest.mark.parametrize("seed", range(3))
def test_words_changed(tmp_path: Path, examples: Path, seed: int) -> None:
    texts = [(examples / f"{name}.plan").read_text(encoding="utf-8") for name in PLANS]
    words = sorted({word for text in texts for word in text.split()})
    draw = random.Random(seed)
    for _ in range(300):
        parts = draw.choice(texts).split(" ")
        for _ in range(draw.randrange(1, 4)):
            parts[draw.randrange(len(parts))] = draw.choice(words)
        survives(tmp_path / "words.plan", " ".join(parts))


def test_overrides_changed(tmp_path: Path, examples: Path) -> None:
    text = (examples / "sequence_parallel.plan").read_text(encoding="utf-8")
    paths = [
        "mesh.tp",
        "mesh.ep",
        "model.heads",
        "model.experts.count",
        "shard.heads",
        "require.memory",
        "schedule",
        "x",
    ]
    values = ["2", "8 over dp", "tp", "whole", "< 3 GiB", "gpipe", "1f1b", "none", "", '"a"', "(((", "0", "-1", "1e400"]
    draw = random.Random(0)
    for _ in range(300):
        chosen = [f"{draw.choice(paths)}={draw.choice(values)}" for _ in range(draw.randrange(1, 3))]
        survives(tmp_path / "set.plan", text, *chosen)
