"""How far the ranks' results are from those of the unsharded model, and which tensor is the first that is wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from moec.compiler.verify.decisions import Compared, compare_decisions
from moec.compiler.verify.expected import Expected
from moec.compiler.verify.run_ranks import STEPS, Outcome
from moec.compiler.verify.shrink import Trial

TOLERANCE = 1e-9
GRADIENT_FLOOR = 1e-3
"""Of the largest gradient's norm: what is smaller is compared with this, since its rounding noise is not an error."""

KINDS = ("loss", "gradients", "weights")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Largest relative errors by kind, and what is wrong in words."""

    errors: Mapping[str, float]
    decisions: Compared
    faults: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return not self.faults and all(error <= TOLERANCE for error in self.errors.values())

    @staticmethod
    def failed(*faults: str) -> "Comparison":
        """Of programs that came to nothing."""
        return Comparison(dict.fromkeys(KINDS, float("inf")), Compared(None), faults)


def compare(trial: Trial, true: Expected, outcomes: Sequence[Outcome]) -> Comparison:
    """Every rank's loss, gradients and weights: ‖a - b‖ / max(‖b‖, floor), the norm of a slice, floors of the whole."""
    errors = _Errors()
    for rank, outcome in enumerate(outcomes):
        for step, (mine, loss) in enumerate(zip(outcome.losses, true.losses, strict=True)):
            errors.note("loss", abs(mine - loss) / max(abs(loss), 1e-12), "the loss", rank, step)
        for step, gradients in enumerate(outcome.gradients):
            floor = GRADIENT_FLOOR * max((_norm(x) for x in true.gradients[step].values()), default=0.0)
            for name, value in gradients.items():
                errors.slice("gradients", name, value, outcome.where[name], true.gradients[step], floor, rank, step)
        for name, value in outcome.weights.items():
            if name in true.weights:  # others are buffers
                floor = true.weights[name].numel() ** 0.5
                errors.slice("weights", name, value, outcome.where[name], true.weights, floor, rank, STEPS - 1)
    decisions = compare_decisions(trial, true.decisions, [outcome.decisions for outcome in outcomes])
    return Comparison(errors.largest, decisions, (*errors.faults(), *decisions.faults))


@dataclass(slots=True)
class _Errors:
    largest: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    _wrong: list[tuple[float, str, str, int, int]] = field(default_factory=list)  # error, kind, name, rank, step

    def slice(
        self,
        kind: str,
        name: str,
        mine: Tensor,
        where: tuple[slice, ...],
        whole: Mapping[str, Tensor],
        floor: float,
        rank: int,
        step: int,
    ) -> None:
        true = whole[name]
        self.note(kind, _norm(mine - true[where]) / max(_norm(true), floor, 1e-300), name, rank, step)

    def note(self, kind: str, error: float, name: str, rank: int, step: int) -> None:
        error = error if error == error else float("inf")
        self.largest[kind] = max(self.largest[kind], error)
        if error > TOLERANCE:
            self._wrong.append((error, kind, name, rank, step))

    def faults(self) -> list[str]:
        """The first tensor that is wrong of each kind, by its error."""
        found = []
        for kind in KINDS:
            wrong = [entry for entry in self._wrong if entry[1] == kind]
            if wrong:
                first = min(entry[4] for entry in wrong)
                error, _, name, rank, step = max((entry for entry in wrong if entry[4] == first), key=lambda e: e[0])
                ranks = len({entry[3] for entry in wrong})
                what = {"loss": name, "gradients": f"the gradient of {name}", "weights": f"the weight {name}"}[kind]
                found.append(f"{what} differs by {error:.1e} on rank {rank} in step {step + 1} ({ranks} ranks differ)")
        return found


def _norm(x: Tensor) -> float:
    return float(x.norm())
