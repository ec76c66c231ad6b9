"""The machine that was measured: each rate as a peak, and the part of it that is reached."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from moec.compiler.cost.calibrate.fit_kernels import KernelFit, fit_kernels
from moec.compiler.cost.calibrate.fit_links import LinkFit, fit_links
from moec.compiler.cost.calibrate.order import Order
from moec.compiler.cost.calibrate.start import UNKNOWN, name_in_table, peaks, start_machine
from moec.compiler.cost.calibrate.timings import Measured
from moec.compiler.cost.machine import Machine

_NETWORK = ("network_bandwidth", "network_efficiency", "network_latency")
_LINKS = ("link_bandwidth", "link_efficiency", "collective_latency", "link_latency")


@dataclass(frozen=True, slots=True)
class MachineFit:
    machine: Machine
    compute: Mapping[str, float]
    """FLOP/s by precision; times the efficiency, what a large product gets."""
    errors: Mapping[str, float]
    """Of the model with these constants, mean absolute relative, by what was measured."""


def fit_machine(order: Order, measured: Measured) -> MachineFit:
    """Peaks are those of the table, where it has the device; else the best that was seen."""
    start, known = start_machine(order, measured.processor), name_in_table(order, measured.processor)
    kernels = fit_kernels(measured.timings, order.main, start)
    machine, compute = _with_peaks(kernels, order, known, start)
    machine = replace(machine, dispatch=measured.dispatch or machine.launch)
    if not measured.messages:
        return MachineFit(replace(machine, assumed=(*_LINKS, *_NETWORK)), compute, kernels.errors)
    links = fit_links(measured.messages, start)
    machine = _with_links(machine, links, known, start)
    if all(message.ranks == 2 for message in measured.messages):
        machine = replace(machine, assumed=("link_latency", *machine.assumed))
    return MachineFit(machine, compute, {**kernels.errors, "messages": links.error})


def _with_peaks(kernels: KernelFit, order: Order, known: str, start: Machine) -> tuple[Machine, Mapping[str, float]]:
    machine, peak = kernels.machine, peaks(known)
    compute = peak.get(order.main, max(kernels.best_rate, machine.compute))
    efficiency = machine.compute / compute
    rates = {precision: rate / efficiency for precision, rate in kernels.rates.items()}
    on_sheet = {"float8": peak["float8"]} if "float8" in peak else {}
    bandwidth = start.memory_bandwidth if peak else max(kernels.best_bandwidth, machine.memory_bandwidth)
    machine = replace(machine, memory_bandwidth=bandwidth, memory_efficiency=machine.memory_bandwidth / bandwidth)
    return replace(machine, compute=compute, efficiency=efficiency), {**on_sheet, **rates}


def _with_links(machine: Machine, links: LinkFit, known: str, start: Machine) -> Machine:
    """The network is not measured."""
    reached = links.machine.link_bandwidth
    bandwidth = max(links.best_bandwidth, reached) if known in ("cpu", UNKNOWN) else start.link_bandwidth
    return replace(
        machine,
        link_bandwidth=bandwidth,
        link_peer_bandwidth=start.link_peer_bandwidth / start.link_bandwidth * bandwidth,
        link_efficiency=reached / bandwidth,
        collective_latency=links.machine.collective_latency,
        link_latency=links.machine.link_latency,
        assumed=_NETWORK,
    )
