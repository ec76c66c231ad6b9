"""The tables of published runs: how the constants that predict them were got, and how far off peers are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from published import Run


def never(run: Run) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Group:
    """One table."""

    fitted: str = "No constant was fitted on any row of it."
    fits: Callable[[Run], bool] = never
    """Rows that the constants of its hardware are fitted on."""
    constants: tuple[str, ...] = ()
    leave_out: bool = False
    """Whether to predict each model with constants that are fitted on the others."""
    peers: Mapping[str, str] = field(default_factory=dict)


def _one_node(run: Run) -> bool:
    return "22B" in run.id


GROUPS = {
    "korthikanti": Group(
        "Fitted on its rows of 22B, one node: a100's efficiency and memory_efficiency; all others are held out.",
        _one_node,
        ("efficiency", "memory_efficiency"),
        peers={"Calculon": "3.65 %, fitted on these rows"},
    ),
    "sc21": Group("Held out: a100's constants are of korthikanti's 22B.", peers={"Calculon": "10.3 %"}),
    "vtrain": Group(
        "Held out: a100's constants are of korthikanti's 22B.",
        peers={"vTrain": "14.7 %", "Calculon": "15.3 %"},
    ),
    "simumax_b200": Group(
        "Fitted on all of its rows: b200's efficiency and memory_efficiency.",
        lambda run: True,
        ("efficiency", "memory_efficiency"),
        leave_out=True,
        peers={"SimuMax": "5.6 %, of mixtures 6.6 %"},
    ),
}
