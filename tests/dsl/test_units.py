"""Literals are exact, and units are kept apart."""

from fractions import Fraction

import pytest

from moec.dsl.units import BYTE_RATE, BYTES, PLAIN, SECONDS, TOKEN_RATE, Misspelt, Quantity, read_literal


@pytest.mark.parametrize(
    ("text", "quantity"),
    [
        ("32_000", Quantity(Fraction(32_000))),
        ("1.1", Quantity(Fraction(11, 10), PLAIN, True)),
        ("3e-4", Quantity(Fraction(3, 10_000), PLAIN, True)),
        ("64 GiB", Quantity(Fraction(2**36), BYTES)),
        ("50ms", Quantity(Fraction(1, 20), SECONDS)),
        ("20 %", Quantity(Fraction(1, 5))),
        ("20_000 tokens/s", Quantity(Fraction(20_000), TOKEN_RATE)),
        ("5 B/s", Quantity(Fraction(5), BYTE_RATE)),
    ],
)
def test_literal(text: str, quantity: Quantity) -> None:
    assert read_literal(text) == quantity


@pytest.mark.parametrize("text", ["010", "1__0", "1_", "1e400", "1.", "1.2.3", "9" * 400, "0x10", "3 Gib", "1e9999999"])
def test_misspelt(text: str) -> None:
    assert isinstance(read_literal(text), Misspelt)
