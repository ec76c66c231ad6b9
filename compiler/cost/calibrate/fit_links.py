"""The constants of the links between ranks with which the cost model gives the seconds that were measured."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moec.compiler.cost.calibrate.least_squares import error, least_squares
from moec.compiler.cost.calibrate.timings import Message
from moec.compiler.cost.links import Spread, collective_seconds, message_seconds
from moec.compiler.cost.machine import Machine


@dataclass(frozen=True, slots=True)
class LinkFit:
    """`machine` has the bandwidth that was reached, and an efficiency of 1."""

    machine: Machine
    best_bandwidth: float
    """The highest of any message."""
    error: float
    """Mean absolute relative."""


def fit_links(messages: Sequence[Message], start: Machine) -> LinkFit:
    """Groups of two take no further steps: without larger ones the latency of a step stays what it is."""
    steps = any(message.ranks > 2 for message in messages)
    measured = [message.seconds for message in messages]

    def vary(values: Sequence[float]) -> Machine:
        latency, bandwidth, *step = values
        return _with(start, latency, step[0] if step else start.link_latency, bandwidth)

    found = least_squares(lambda values: _model(messages, vary(values)), measured, (1e-4, 1e9, *([1e-5] * steps)))
    machine = vary(found)
    streaming = _model(messages, _with(machine, 0.0, 0.0, machine.link_bandwidth))
    best = max(machine.link_bandwidth * ideal / real for ideal, real in zip(streaming, measured, strict=True))
    return LinkFit(machine, best, error(_model(messages, machine), measured))


def _with(machine: Machine, collective: float, step: float, bandwidth: float) -> Machine:
    """One peer gets the part of it that is known of the machine; all of it, where the ranks share what links carry."""
    peer = machine.link_peer_bandwidth / machine.link_bandwidth * bandwidth
    machine = replace(machine, collective_latency=collective, link_latency=step, link_efficiency=1.0)
    return replace(machine, link_bandwidth=bandwidth, link_peer_bandwidth=peer)


def _model(messages: Sequence[Message], machine: Machine) -> list[float]:
    return [_seconds(message, machine) for message in messages]


def _seconds(message: Message, machine: Machine) -> float:
    if message.kind == "send":
        return message_seconds(message.size, 0, 1, machine)
    return collective_seconds(message.kind, message.size, Spread(message.ranks, 1, message.ranks), machine)
