"""Which sequence of a user is the newest."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cove_dist.tasks.sequential.users import _newest


@given(st.integers(2, 40), st.integers(2, 7), st.randoms(use_true_random=False))
def test_the_newest_of_pieces_in_any_order_ends_with_the_newest_item(count: int, longest: int, order: Random) -> None:
    """Pieces as preparation cuts them: from the newest item on, ``longest`` steps each, overlapping by one item."""
    items = np.random.default_rng(count).permutation(count)
    ends = range(count - 1, 0, -longest)
    pieces = [items[max(0, end - longest) : end + 1] for end in ends]
    expected = pieces[0].tolist()
    order.shuffle(pieces)
    assert _newest(pieces).tolist() == expected


def test_a_sequence_is_found_where_items_repeat() -> None:
    assert _newest([np.array([4, 2, 4]), np.array([4, 3])]).tolist() == [4, 3]
    assert _newest([np.array([4, 2, 4])]).tolist() == [4, 2, 4]
    assert _newest([np.array([1, 2]), np.array([2, 1])]).tolist() == [2, 1], "a circle"
