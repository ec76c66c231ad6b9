"""Metrics for TensorBoard, where it is installed."""

from importlib.util import find_spec

from moec.runtime.data import DataFault
from moec.runtime.metrics import Metrics


def check_tensorboard() -> None:
    """Raise DataFault where it is not."""
    if find_spec("tensorboard") is None:
        raise DataFault("--tensorboard needs the package tensorboard, which is not installed: pip install tensorboard")


class Board:
    """A folder of events."""

    def __init__(self, folder: str, after_step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter  # slow, and seldom wanted

        self._writer = SummaryWriter(folder, purge_step=after_step + 1 if after_step else None)

    def write(self, metrics: Metrics) -> None:
        """A scalar for each figure, and for each router how uneven its load is."""
        for name, value in metrics.figures.items():
            self._writer.add_scalar(name, value, metrics.step)
        for router, counts in metrics.experts.items():
            if total := sum(counts):
                fullest = max(counts) * len(counts) / total
                self._writer.add_scalar(f"experts/{router}/fullest_over_mean", fullest, metrics.step)
                self._writer.add_scalar(f"experts/{router}/dropped", metrics.dropped[router] / total, metrics.step)

    def write_held_out(self, step: int, loss: float) -> None:
        self._writer.add_scalar("held_out_loss", loss, step)

    def close(self) -> None:
        self._writer.close()
