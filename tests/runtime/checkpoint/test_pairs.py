"""What one drawn plan saves any other plan of the model loads, bit for bit, and goes on as if it had never stopped."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy
import pytest
import torch
from drawn_pairs import Pair, compiled, pairs
from hypothesis import HealthCheck, Phase, assume, given, settings

GENERATE = (Phase.explicit, Phase.generate)  # a failing pair is printed as it is: to shrink it takes minutes
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def check(pair: Pair, folder: Path) -> None:
    path = folder / "drawn.plan"
    path.write_text(pair.text)
    with ExitStack() as stack:
        before, after = (compiled(stack, path, change) for change in pair.changes)
        assume(before is not None and after is not None)
        tail = Path(stack.enter_context(TemporaryDirectory(dir=folder)))
        runs, _ = before.trained(2)
        first = before.saved(runs, tail / "a")
        _, whole = before.trained(5)
        runs, _ = after.trained(0, tail / "a")
        second = after.saved(runs, tail / "b")
        assert first.tensors.keys() == second.tensors.keys() and len(first.tensors) > 0
        for key, x in first.tensors.items():
            assert (first.times[key] == 1).all() and (second.times[key] == 1).all(), key
            assert x.tobytes() == second.tensors[key].tobytes(), key
        _, resumed = after.trained(3, tail / "a")
        assert all(numpy.isfinite(whole))
        if before.job.training.precision == "fp64":
            torch.testing.assert_close(resumed, whole[2:], rtol=1e-9, atol=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("drawn")


@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=QUIET, phases=GENERATE)
@given(pair=pairs(world=8))
def test_pairs(folder, pair):
    check(pair, folder)


@pytest.mark.sweep
def test_sweep(folder, request):
    """`--cases` of them; one that fails is shrunk, and its plan is printed."""

    @settings(max_examples=request.config.getoption("--cases"), deadline=None, suppress_health_check=QUIET)
    @given(pair=pairs(world=24))
    def run(pair):
        check(pair, folder)

    run()
