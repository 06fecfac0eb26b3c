"""Which texts stand in which step follows from the seed alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.training.batches import PART_TOKENS, batch_at, parts_of, steps_in


@given(st.integers(1, 50), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_an_epoch_has_every_text_once(texts: int, size: int, seed: int) -> None:
    for epoch in range(2):
        steps = range(epoch * steps_in(texts, size), (epoch + 1) * steps_in(texts, size))
        batches = [batch_at(step, texts, size, seed) for step in steps]
        assert sorted(text for batch in batches for text in batch) == list(range(texts))
        assert all(len(batch) == size for batch in batches[:-1])


def test_the_order_is_another_in_each_epoch_and_for_each_seed() -> None:
    orders = {tuple(batch_at(step, 100, 100, seed)) for step in range(3) for seed in range(3)}
    assert len(orders) == 9
    assert batch_at(1, 100, 100, 2) == batch_at(1, 100, 100, 2)


@given(st.lists(st.integers(1, 2 * PART_TOKENS), min_size=1, max_size=40))
def test_parts_hold_each_text_once_within_the_bound(lengths: list[int]) -> None:
    parts = parts_of(lengths)
    assert sorted(place for part in parts for place in part) == list(range(len(lengths)))
    for part in parts:
        width = max(lengths[place] for place in part)
        assert len(part) == 1 or width * len(part) <= PART_TOKENS


@pytest.mark.parametrize(("lengths", "parts"), [([5, 9, 7], [[1, 2, 0]]), ([2000, 40, 2000], [[0], [2], [1]])], ids=str)
def test_texts_of_like_length_stand_together(lengths: list[int], parts: list[list[int]]) -> None:
    assert parts_of(lengths) == parts
