"""Category negatives of a sampled softmax, against loops over positions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from cove_dist.errors import ConfigError
from cove_dist.losses import sampled_cross_entropy
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.sequential.category_negatives import CategoryNegatives
from data_pipeline.streaming.vocabulary import CategorySplit, WithinCategories

ITEMS, CODES = 9, 3


@given(st.integers(0, 99), st.integers(0, 4), st.integers(1, 3), st.integers(1, 4))
def test_a_position_has_the_items_of_its_category_but_those_of_its_sequence(seed, of_all, of_each, count):
    random = np.random.default_rng(seed)
    codes = random.integers(CODES, size=ITEMS)
    split = CategorySplit(of_all, of_each, CODES)
    sampled = random.integers(ITEMS, size=of_all + CODES * of_each)
    lengths = random.integers(1, 5, size=count)
    owners = np.repeat(np.arange(count), lengths)
    ids, which = random.integers(ITEMS, size=len(owners)), random.integers(len(owners), size=6)
    negatives = CategoryNegatives(split, len(sampled))
    assert not negatives.known
    negatives.set_codes(codes.astype(np.uint8), torch.device("cpu"))
    inputs = (sampled, ids[which], ids, owners, owners[which])
    found = negatives.excluded(*map(torch.from_numpy, inputs), count)
    for position, item in enumerate(which):
        own = set(ids[owners == owners[item]].tolist())
        for slot, candidate in enumerate(sampled.tolist()):
            block = (slot - of_all) // of_each
            expected = slot >= of_all and (block != codes[ids[item]] or candidate in own)
            assert bool(found[position, slot]) == expected


@given(st.integers(1, 5000), st.floats(0.01, 1.0), st.integers(1, 30))
def test_of_what_a_position_has_the_share_is_of_its_category(count, share, codes):
    split = CategorySplit.by_share(count, share, codes)
    assert split.of_all + codes * split.of_each == count
    assert split.of_all >= 0
    exact = count * share / (1 - share + codes * share)
    assert exact - 1 - 1e-9 <= split.of_each <= exact + 1e-9


def test_items_of_a_category_are_drawn_by_their_probabilities():
    codes, probabilities = np.array([0, 2, 0, 2, 2]), np.array([0.1, 0.3, 0.3, 0.2, 0.1])  # category 1 is empty
    drawn = WithinCategories(codes, probabilities, 3).draw(np.random.default_rng(0).random(60_000)).reshape(3, -1)
    first, last = (np.bincount(drawn[code], minlength=5) for code in (0, 2))
    assert chisquare(first[[0, 2]], 20_000 * np.array([0.25, 0.75])).pvalue > 1e-4
    assert chisquare(last[[1, 3, 4]], 20_000 * np.array([3, 2, 1]) / 6).pvalue > 1e-4
    assert first[[0, 2]].sum() == last[[1, 3, 4]].sum() == 20_000


def test_the_loss_leaves_out_what_a_position_does_not_have():
    random = torch.Generator().manual_seed(0)
    hidden, rows = (torch.randn(size, 4, generator=random) for size in (5, ITEMS))
    targets, sampled = (torch.randint(ITEMS, (size,), generator=random) for size in (5, 20))
    weights, log_expected = torch.rand(5, generator=random), torch.randn(20, generator=random)
    excluded = torch.rand(5, 20, generator=random) < 0.5
    found = sampled_cross_entropy(
        hidden, rows[targets], targets, weights, rows[sampled], sampled, log_expected, excluded
    )
    expected = 0.0
    for position, target in enumerate(targets.tolist()):
        true = math.exp(float(hidden[position].double() @ rows[target].double()))
        others = [
            math.exp(float(hidden[position].double() @ rows[item].double()) - float(log_expected[slot]))
            for slot, item in enumerate(sampled.tolist())
            if item != target and not excluded[position, slot]
        ]
        expected -= float(weights[position]) * math.log(true / (true + sum(others)))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_too_few_samples_and_a_missing_quantizer_are_refused():
    given = ["model=sasrec", "sequential.softmax=sampled", "sequential.sampled=30", "negatives.category_share=0.2"]
    with pytest.raises(ConfigError, match=r"sequential\.sampled = 30: too few for a share 0\.2 of 8 categories"):
        load_run_config(given)
    with pytest.raises(ConfigError, match=r"category_codes = quantizer: items are not quantized"):
        load_run_config([*given, "negatives.category_codes=quantizer"])
