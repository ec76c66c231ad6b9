"""How long ranks talk: latency and bandwidth by the way that a group lies over nodes.

Ring algorithms move 2 (g - 1) / g of an all_reduce's bytes past every rank, and half as many of a gather's or a
scatter's (Thakur, Rabenseifner, Gropp: Optimization of collective communication operations in MPICH, 2005). Where a
group spans nodes, each of its ranks in a node brings its own network card, over which the ring leaves the node: r ranks
to a node, r cards. An all_to_all leaves the node with what is not for ranks within it, each rank over its own card.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2

from moec.compiler.cost.machine import Machine

_ROUNDS = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1}
"""How often a ring passes all of the data."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A group of ranks over nodes: how many nodes, and how many ranks in the emptiest, which has fewest cards."""

    ranks: int
    nodes: int
    per_node: int


def spread(ranks: Sequence[int], per_node: int) -> Spread:
    """Consecutive ranks are in one node."""
    nodes = Counter(rank // per_node for rank in ranks)
    return Spread(len(ranks), len(nodes), min(nodes.values()))


def worst_spread(members: Sequence[int], others: Sequence[int], per_node: int) -> Spread:
    """Of the groups like this one in which `others` are: the one over most nodes, with fewest ranks in one of them."""
    shape = [rank - members[0] for rank in members]
    covered: set[int] = set()
    found: dict[int, Spread] = {}
    for first in others:
        if first not in covered:
            group = [first + step for step in shape]
            covered.update(group)
            if first % per_node not in found:
                found[first % per_node] = spread(group, per_node)
    return max(found.values(), key=lambda each: (each.nodes, -each.per_node))


@dataclass(frozen=True, slots=True)
class Talking:
    """How long a message or a collective takes: latency, and `times` its bytes at a rate."""

    latency: float
    times: float
    size: float
    rate: float

    @property
    def seconds(self) -> float:
        return self.latency + self.times * self.size / self.rate


def collective_seconds(kind: str, size: float, group: Spread, machine: Machine) -> float:
    """`size` is the bytes of a rank's operand: of an all_gather its own part, of others what it has of the whole."""
    return collective(kind, size, group, machine).seconds if group.ranks > 1 else 0.0


def collective(kind: str, size: float, group: Spread, machine: Machine) -> Talking:
    """Of a group of two ranks or more."""
    g = group.ranks
    inside, outside = link_rate(group.per_node, machine), machine.network_bandwidth * machine.network_efficiency
    if kind == "all_to_all":
        stays = (group.per_node - 1) / g if group.per_node > 1 else 0.0
        leaves = (g - group.per_node) / g if group.nodes > 1 else 0.0
        part, rate = max((stays, inside), (leaves, outside), key=lambda way: way[0] / way[1])
        return Talking(latency(1, group, machine), part, size, rate)
    rounds = _ROUNDS[kind]
    whole = size * g if kind == "all_gather" else size
    rate = inside if group.nodes == 1 else min(inside if group.per_node > 1 else outside, group.per_node * outside)
    return Talking(latency(rounds, group, machine), rounds * (g - 1) / g, whole, rate)


def latency(rounds: int, group: Spread, machine: Machine) -> float:
    """Steps along a ring in a node, and along a tree between nodes."""
    steps = max(0, rounds * (group.per_node - 2))
    between = rounds * ceil(log2(group.nodes)) if group.nodes > 1 else 0
    return machine.collective_latency + steps * machine.link_latency + between * machine.network_latency


def message_seconds(size: float, source: int, target: int, machine: Machine) -> float:
    return message(size, source, target, machine).seconds


def message(size: float, source: int, target: int, machine: Machine) -> Talking:
    """From one rank to one other."""
    if source // machine.ranks_per_node == target // machine.ranks_per_node:
        rate = min(machine.link_bandwidth, machine.link_peer_bandwidth) * machine.link_efficiency
        return Talking(machine.collective_latency, 1, size, rate)
    rate = machine.network_bandwidth * machine.network_efficiency
    return Talking(machine.collective_latency + machine.network_latency, 1, size, rate)


def link_rate(ranks: int, machine: Machine) -> float:
    """What one rank sends to so many in its node, bytes/s: without a switch each peer has a link of its own."""
    most = min(machine.link_bandwidth, max(1, ranks - 1) * machine.link_peer_bandwidth)
    return most * machine.link_efficiency
