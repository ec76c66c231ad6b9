"""Programs to check, each compiled once."""

from pathlib import Path

import pytest
from compiled import compiled, emitted

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def compile_once():
    """Plan below the root of the repository -> its program and its files."""
    return lambda name: (compiled(ROOT / name), dict(emitted(ROOT / name)))
