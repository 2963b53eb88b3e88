"""Python values as settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given
from hypothesis import strategies as st

from cove_dist.errors import ConfigError
from cove_dist.from_python import override, overrides_of
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


@given(st.text(st.characters(codec="ascii", categories=["L", "P", "S", "Zs"]), min_size=1))
def test_keys_of_mappings_are_read_back_or_refused(key: str) -> None:
    """Hydra reads no quoted keys."""
    try:
        word = override("x", {key: 3})
    except ConfigError:
        assume(False)
    [(found, value)] = OverridesParser.create().parse_override(word).value().items()
    assert (str(found), value) == (key, 3)


@pytest.mark.parametrize("key", ["p,q", "a:b", "price (EUR)", "a[0]", "k=v"])
def test_columns_with_signs_may_be_keys(key: str) -> None:
    assert OverridesParser.create().parse_override(override("min_count", {key: 3})).value() == {key: 3}


@pytest.mark.parametrize("key", ["Größe", "价格", "it's", "null"])
def test_keys_that_cannot_be_written_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=r"min_count = .*: its keys have letters beyond ASCII.*COVE_CONFIG_DIR names"):
        override("min_count", {key: 3})
