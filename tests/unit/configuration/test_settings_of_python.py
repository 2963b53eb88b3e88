"""Python values as settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cove_dist.errors import ConfigError
from cove_dist.settings import override, overrides_of
from cove_dist.tasks.configuration import load_run_config

EQUAL: list[tuple[Any, Any]] = [
    (np.float64(0.1), 0.1),
    (np.float32(0.5), 0.5),
    (np.int64(3), 3),
    (np.uint8(200), 200),
    (np.bool_(True), True),
    (np.str_("a b"), "a b"),
    (torch.tensor(2), 2),
    (torch.tensor([1.5, 2.0]), [1.5, 2.0]),
    (np.arange(3), [0, 1, 2]),
    (range(3), [0, 1, 2]),
    ((np.int64(8), 4), [8, 4]),
    ({"x": np.int8(1)}, {"x": 1}),
    (Path("a b"), "a b"),
]


@pytest.mark.parametrize(("value", "plain"), EQUAL, ids=str)
def test_scalars_and_arrays_are_the_settings_that_they_hold(value: Any, plain: Any) -> None:
    assert override("key", value) == override("key", plain)


def test_they_are_read_as_numbers() -> None:
    settings = {"trainer": {"epochs": np.int64(3)}, "quantizer.item_levels": np.array([16, 4]), "seed": torch.tensor(5)}
    chosen = overrides_of({"model": np.str_("bprmf"), "quantizer": "cove_items", "embeddings.dim": np.int32(8)})
    config, _ = load_run_config([*chosen, *overrides_of(settings)])
    assert (config.trainer.epochs, config.embeddings.dim, config.seed) == (3, 8, 5)
    assert config.quantizer.levels() == {"item": (16, 4)}


@pytest.mark.parametrize("value", [{1, 2}, object(), [1, {2}], 1j])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.epochs = .*: of type \w+; give a number, text, True, False, None"):
        overrides_of({"trainer.epochs": value})
