"""What the system says of the processor that a rank runs on."""

import os
import platform
from pathlib import Path

import torch

from moec.compiler.cost.calibrate.order import Order
from moec.compiler.cost.calibrate.timings import Processor

_CPU_INFO = Path("/proc/cpuinfo")


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor(order: Order) -> Processor:
    if order.device == "cuda":
        found = torch.cuda.get_device_properties(torch.cuda.current_device())
        return Processor(found.name, found.multi_processor_count, found.total_memory)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Processor(_cpu_name(), 1, memory // order.ranks)


def _cpu_name() -> str:
    """Where there is no list of processors, what the system calls them."""
    lines = _CPU_INFO.read_text(encoding="utf-8").splitlines() if _CPU_INFO.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
