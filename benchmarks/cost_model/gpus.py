"""Which entry of the hardware table a row's GPU is, and what the row says of it that the table does not."""

import re
from dataclasses import dataclass

from left_out import LeftOut
from step_seconds import number

from moec.compiler.cost.machine import read_table, resolve

FORMS = {
    ("a100", "pcie"): "a100_pcie",
    ("a100", "40( ?gb?)?"): "a100_40gb",
    ("h100", "pcie"): "h100_pcie",
    ("h100", "nvl|94 ?gb"): "h100_nvl",
    ("a800", "pcie"): "",
    ("h800", "pcie"): "",
    ("h200", "nvl"): "",
}
"""Entries of those that are sold in several forms, by a word of the name; the first that fits. Empty: none is known."""

VARIANTS = {
    "a100_pcie": "an A100 with its bandwidth of memory, and PCIe between GPUs",
    "a800": "an A100 with NVLink at 200 GB/s one way",
    "h100_pcie": "an H100 with its own rates, bandwidth of memory and multiprocessors, and PCIe between GPUs",
    "h100_nvl": "an H100 with its own rates and memory, and PCIe between GPUs",
    "h800": "an H100 with NVLink at 200 GB/s one way",
    "h20": "an H100 with its own rate, multiprocessors and memory",
    "gh200": "an H100 with its memory",
    "mi250x": "one of its two dies, by an MI300X's share of the peak rate",
    "mi325x": "an MI300X with its memory",
    "mi355x": "an MI300X with its own rates, memory and links",
}
"""Entries on which nothing was measured: as what they are predicted."""

_FAMILY = re.compile(
    r"(?<![a-z0-9])(?:\d+ ?x ?)?"
    r"(gb300|gb200|gh200|b300|b200|h20|h800|h200|h100|a800|a100|v100|mi250x?|mi300x|mi325x|mi355x|l40s)(?![0-9])"
)
_ALONE = ("gb200", "gb300")
"""Of which nodes are no domains of NVLink."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """An entry of the table, bytes and bytes/s that its memory has otherwise (0: as the entry), and what is assumed."""

    entry: str
    memory: float = 0.0
    bandwidth: float = 0.0
    assumed: str = ""


def gpu_of(name: str) -> Gpu:
    """Names as vendors, drivers and papers write them; raises LeftOut for a GPU of which nothing is known."""
    said = name.lower()
    plain = re.sub(r"[^a-z0-9.]+", " ", said.partition("(")[0])
    family = _FAMILY.search(plain) or _FAMILY.search(re.sub(r"[^a-z0-9.]+", " ", said))
    if not family:
        raise LeftOut(f"nothing is known of the GPU {name}")
    forms = [entry for (of, word), entry in FORMS.items() if of == family[1] and re.search(rf"\b({word})\b", plain)]
    entry = forms[0] if forms else "mi250x" if family[1] == "mi250" else family[1]
    if not entry:
        raise LeftOut(f"nothing is known of the GPU {name}")
    size = re.search(r"(?<![\d.])(\d+) ?gi?b?\b(?! ?/ ?s)", said.partition("(")[0])
    rate = re.search(r"([\d.]+) ?tb/s", said)
    known = resolve(entry, read_table())
    memory = float(size[1]) * 1e9 if size else 0.0
    bandwidth = float(rate[1]) * 1e12 if rate else 0.0
    if memory == known["memory"] or memory >= 2 * number(known, "memory"):  # a GH200's CPU, both dies of an MI250X
        memory = 0.0
    if bandwidth == known["memory_bandwidth"]:
        bandwidth = 0.0
    assumed = f"{name} is predicted as {VARIANTS[entry]}" if entry in VARIANTS else ""
    if memory and not bandwidth:
        assumed = assumed or f"{name} is predicted with the bandwidth of memory of {known['title']}"
    return Gpu(entry, memory, bandwidth, assumed)


def per_node(entry: str, gpus: int, nodes: int) -> int:
    """Ranks of a node where a row says it and the table says otherwise; 0: as the table says."""
    if entry in _ALONE or nodes < 2 or gpus % nodes:
        return 0
    return gpus // nodes if gpus // nodes != resolve(entry, read_table())["ranks_per_node"] else 0
