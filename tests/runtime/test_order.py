"""The order of an epoch: a permutation, another for each epoch and seed, and any item anywhere."""

from collections import Counter
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec.runtime.data import Order, Part


@given(st.integers(1, 400), st.integers(0, 2**63), st.integers(0, 5))
def test_each_epoch_has_every_item_once(count, seed, epoch):
    order = Order(count, seed)
    assert sorted(order.item(epoch * count + n) for n in range(count)) == list(range(count))


@given(st.integers(401, 10**15), st.integers(0, 10**18), st.data())
def test_a_large_range_is_kept_to_and_no_item_comes_twice(count, seed, data):
    numbers = data.draw(st.sets(st.integers(0, count - 1), min_size=2, max_size=30))
    items = {Order(count, seed).item(number) for number in numbers}
    assert len(items) == len(numbers) and all(0 <= item < count for item in items)


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(Order(50, seed).item(n) for n in range(e * 50, e * 50 + 50)) for seed in (0, 1) for e in range(3)}
    assert len(orders) == 6


@pytest.mark.parametrize("count", [4, 7, 30])
def test_any_item_comes_at_any_place(count):
    """Of 200 * count seeds each item is expected 200 times at a place; five standard deviations are 71."""
    for place in (0, count // 2, count - 1):
        found = Counter(Order(count, seed).item(place) for seed in range(200 * count))
        assert len(found) == count and all(abs(times - 200) < 71 for times in found.values())


def test_all_orders_of_a_few_items_come():
    found = {tuple(Order(4, seed).item(n) for n in range(4)) for seed in range(600)}
    assert found == set(permutations(range(4)))


def test_a_neighbour_is_no_more_likely_than_another():
    """Of 4,000 pairs of places that follow each other, about 4,000 * 2 / 1000 have items that do."""
    order = Order(1000, 3)
    items = [order.item(n) for n in range(4001)]
    assert sum(abs(a - b) == 1 for a, b in pairwise(items)) < 25


def test_a_part_is_its_items_alone():
    class Letters:
        fingerprint = "letters"

        def __len__(self):
            return 5

        def sample(self, index):
            return {"letter": "abcde"[index]}

    part = Part(Letters(), 1, 4)
    assert [part.sample(n)["letter"] for n in range(len(part))] == ["b", "c", "d"]
    assert part.fingerprint == "letters, 1 to 4 of 5"
    for index in (-1, 3):
        with pytest.raises(AssertionError, match=f"item {index} of 3"):
            part.sample(index)
