"""A measured training run of a published source, and how files of them are read.

Two forms are read: the project's own, which `runs/` holds, and a list of rows as surveys collect them (survey.py).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from left_out import LeftOut
from survey import from_survey

from moec.compiler.cost.practice import Recompute

RUNS = Path(__file__).with_name("runs")


@dataclass(frozen=True, slots=True)
class Shape:
    """The model that was trained."""

    kind: str
    """gpt, decoder (as moec describes it) or sparse (experts beside a shared one, or latent attention)."""
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    seq: int
    gated: bool = False
    tied: bool = False
    fused_attention: bool = True
    bias: bool = True
    """Of the linears and norms of a gpt."""
    dropout: bool = False
    window: int = 0
    """Positions that every other layer attends to; 0: all that came before."""
    latent: tuple[int, ...] = ()
    """Of latent attention: ranks of queries and of keys and values, rotary dims of a head, dims of its values."""
    experts: int = 0
    top_k: int = 0
    expert_ffn: int = 0
    shared_ffn: int = 0
    dense_layers: int = 0
    """Layers without experts, which come first."""
    capacity: float = 0.0
    """Rows of an expert over the mean; 0: none is dropped."""
    predicted: int = 0
    """Layers that predict tokens further ahead."""

    @property
    def ffn_is_used(self) -> bool:
        """Whether any layer has a feed-forward that is not one of many."""
        return not self.experts or self.dense_layers > 0 or self.shared_ffn > 0


@dataclass(frozen=True, slots=True)
class Layout:
    """How it lay on the GPUs."""

    tp: int = 1
    pp: int = 1
    vpp: int = 1
    cp: int = 1
    dp: int = 1
    ep: int = 1
    etp: int = 1
    zero: int = 0
    """1: state of the optimizer shared out, 2: gradients too, 3: weights too."""
    shards: int = 0
    """Ranks among which zero shares out; 0: all of dp."""
    sequence_parallel: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One run and what was measured of it."""

    id: str
    source: str
    model: str
    shape: Shape
    layout: Layout
    micro_batch: int
    global_batch: int
    gpu: str
    """An entry of the hardware table."""
    gpus: int
    precision: str
    framework: str
    seconds: float
    """Of a step; of a layer, forward and backward."""
    derived: str = ""
    """From what `seconds` was calculated, if the source does not print it."""
    forward_seconds: float = 0.0
    of: str = "step"
    """What was timed: a step, or a layer alone."""
    notes: str = ""
    recompute: Recompute = "none"
    recomputed_layers: int = 0
    """Of a stage, in how many layers; 0: in all."""
    overlap: bool = False
    """Whether gradients are summed beside the backward."""
    overlapped_experts: bool = False
    """Whether rows of experts are exchanged beside computing."""
    captured: bool | None = None
    """Whether kernels are launched as a graph that was captured, without the host; None: as its framework does."""
    gradient_bytes: int = 4
    """Of an element of a gradient as it is summed."""
    memory: float = 0.0
    """Bytes at the peak, of the rank that has most; 0: not measured."""
    params_b: float = 0.0
    network: float = 0.0
    """Bytes/s of a GPU one way between nodes, where it is not what the hardware table says."""
    gpu_memory: float = 0.0
    gpu_bandwidth: float = 0.0
    per_node: int = 0
    """GPUs of a node, where it is not what the hardware table says."""
    doubt: str = ""
    """Why a fit should leave it out."""
    assumed: tuple[str, ...] = ()
    """What the source does not say."""


Made = TypeVar("Made")


def read(path: Path | str) -> list[Run]:
    """The runs of a file, of either form."""
    return read_rows(path)[0]


def read_rows(path: Path | str) -> tuple[list[Run], list[tuple[str, str]]]:
    """The runs of a file, and of rows that are none the name and the reason."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    if isinstance(found, list):
        return _read_survey(found)
    common = {"source": found["citation"]} | found["common"]
    return [run_of(common | found["models"][row["model"]] | row) for row in found["rows"]], []


def _read_survey(rows: list[Mapping[str, object]]) -> tuple[list[Run], list[tuple[str, str]]]:
    runs: list[Run] = []
    left_out: list[tuple[str, str]] = []
    for number, row in enumerate(rows):
        try:
            runs.append(run_of(from_survey(row)))
        except LeftOut as reason:
            left_out.append((str(row.get("id", f"row {number}")), str(reason)))
    return runs, left_out


def read_all() -> dict[str, list[Run]]:
    """The project's own runs, by the name of their file."""
    return {path.stem: read(path) for path in sorted(RUNS.glob("*.json"))}


def run_of(row: Mapping[str, object]) -> Run:
    """A run from flat settings: those of its shape, of its layout and its own."""
    shape, layout = _made(Shape, row), _made(Layout, row)
    return _made(Run, {**row, "shape": shape, "layout": layout})


def _made(kind: type[Made], row: Mapping[str, object]) -> Made:
    """An instance of a dataclass, of which each field is the setting of its name if there is one."""
    names = [name for name in kind.__annotations__ if name in row]
    given = {name: tuple(value) if isinstance(value := row[name], list) else value for name in names}
    return kind(**given)
