"""Options of the tests, and the examples."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: small tensors, and tests run side by side

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.plan"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what is emitted today to tests/golden")
    parser.addoption("--cases", type=int, default=200, help="plans that a sweep draws")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten instead of compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(params=EXAMPLES, ids=[path.stem for path in EXAMPLES], scope="session")
def example(request: pytest.FixtureRequest) -> Path:
    """The plan of each example."""
    return request.param
