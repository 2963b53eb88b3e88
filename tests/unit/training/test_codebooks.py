"""Health of codebooks in a run: figures, warnings, records."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from cove_dist.config import QuantizerConfig
from cove_dist.distributed import DistributedContext
from cove_dist.quantization import CascadedQuantizer, CodeUsage
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.codebooks import Codebooks, health

HERE = DistributedContext(rank=0, world_size=1, local_world_size=1, device=torch.device("cpu"))


def quantizer_on_points() -> CascadedQuantizer:
    """Codes at 0, 10, 20, 30 of level 1; at 5 and 30 of level 2."""
    quantizer = CascadedQuantizer(1, (4, 2))
    with torch.no_grad():
        quantizer.codebooks[0].copy_(torch.tensor([[0.0], [10.0], [20.0], [30.0]]))
        quantizer.codebooks[1].copy_(torch.tensor([[5.0], [30.0]]))
    return quantizer


def codebooks_of(quantizer: CascadedQuantizer, context: DistributedContext = HERE, **changes) -> Codebooks:
    config: QuantizerConfig = load_run_config(["data=synthetic", "quantizer=cove"])[0].quantizer
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.1)
    return Codebooks({"item": quantizer}, replace(config, **changes), 0, context, optimizer)


def test_health_by_hand() -> None:
    quantizers = {"user": CascadedQuantizer(1, (2,)), "item": quantizer_on_points()}
    usage = CodeUsage(quantizers.values())
    quantizers["item"](torch.tensor([[0.1], [-3.0], [11.0], [9.0]]))
    quantizers["item"](torch.tensor([[21.0]]), counts=torch.tensor([4]))
    figures = health(quantizers, usage, usage.counts())
    assert figures.pop("perplexity_user_1") != figures.pop("dead_user_1")  # nan: it has not been used
    assert figures == {
        "perplexity_item_1": pytest.approx(4**0.25 * 4**0.25 * 2**0.5),  # 2, 2 and 4 of 8
        "dead_item_1": 0.25,
        "perplexity_item_2": pytest.approx(2),  # codes 0 and 1 are nearest to 5; 2 is nearest to 30
        "dead_item_2": 0,
    }


def test_metrics_of_an_epoch_are_reset_for_the_next(context: DistributedContext) -> None:
    quantizer = quantizer_on_points()
    codebooks = codebooks_of(quantizer, context)
    quantizer(torch.tensor([[0.0], [10.0], [20.0], [30.0]]))
    assert codebooks.close_epoch()["perplexity_item_1"] == pytest.approx(4)
    quantizer(torch.zeros(5, 1))
    state = codebooks.state_dict()
    figures = codebooks.close_epoch()
    assert (figures["perplexity_item_1"], figures["dead_item_1"]) == (pytest.approx(1), 0.75)

    other = quantizer_on_points()
    resumed = codebooks_of(other, context)
    resumed.load_state_dict(state)
    other(torch.full((5, 1), 10.0))
    assert resumed.close_epoch()["perplexity_item_1"] == pytest.approx(2)  # five of the state, five of its own


@pytest.mark.parametrize("warm", [False, True])
def test_a_start_by_kmeans_is_advised_where_it_would_act(warm: bool, caplog: pytest.LogCaptureFixture) -> None:
    config = load_run_config(["data=synthetic", "quantizer=cove", "quantizer.start=kmeans"])[0].quantizer
    quantizer = quantizer_on_points()
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.1)
    for start in ("random", "kmeans"):
        given = replace(config, start=start)
        Codebooks({"item": quantizer}, given, 0, HERE, optimizer, warm=warm).watch({"perplexity_item_1": 1.0})
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert ["quantizer.start=kmeans" in message for message in messages] == ([False, False] if warm else [True])


def test_a_collapsing_level_is_warned_of_once_until_it_has_risen_again(caplog: pytest.LogCaptureFixture) -> None:
    """Of 4 codes, the threshold 0.1 is at perplexity 1.3; of 2, at 1.1."""
    codebooks = codebooks_of(quantizer_on_points(), warn_perplexity=0.1)
    for level_1, level_2 in [(1.31, 1.2), (1.29, 1.2), (1.0, 1.2), (1.0, 1.09), (1.31, 1.0), (1.2, 1.0)]:
        codebooks.watch({"perplexity_item_1": level_1, "perplexity_item_2": level_2, "loss": 1.0})
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [message.split(":")[0] for message in warned] == [
        "item codebook, level 1",
        "item codebook, level 2",
        "item codebook, level 1",
    ]
    assert "perplexity 1.3 of 4 codes" in warned[0]


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({}, "Try quantizer.revive_every=50, or quantizer.start=kmeans, or fewer codes (quantizer.item_levels), or"),
        ({"start": "kmeans"}, "Try quantizer.revive_every=50, or fewer codes"),
        ({"revive_every": 9}, "Try quantizer.start=kmeans, or fewer codes"),
        ({"start": "kmeans", "revive_every": 9}, "Try fewer codes"),
    ],
)
def test_the_warning_names_remedies_that_are_not_in_use(
    caplog: pytest.LogCaptureFixture, changes: dict, remedy: str
) -> None:
    codebooks = codebooks_of(quantizer_on_points(), **{"kmeans_step": 1, **changes})
    codebooks.watch({"perplexity_item_1": 1.0})
    assert ("start" in changes) == (not caplog.records), "no warning of codes that k-means will replace"
    codebooks._step = 1
    codebooks.watch({"perplexity_item_1": 1.0})
    assert remedy in caplog.text
    assert "quantizer.warn_perplexity" in caplog.text


def test_no_warning_without_metrics_or_threshold(caplog: pytest.LogCaptureFixture) -> None:
    codebooks_of(quantizer_on_points()).watch({"loss": 1.0, "perplexity_item_1": float("nan")})
    codebooks_of(quantizer_on_points(), warn_perplexity=0.0).watch({"perplexity_item_1": 1.0})
    codebooks_of(CascadedQuantizer(1, (1,))).watch({"perplexity_item_1": 1.0})  # of one code it is no collapse
    assert not caplog.records
