"""The class of a model and its arguments, resolved once."""

from __future__ import annotations

import inspect
from importlib import import_module
from pkgutil import iter_modules

import pytest
from torch import nn

import cove_dist.models.ctr
import cove_dist.models.sequential
from cove_dist.config.model_spec import ModelSpec
from cove_dist.errors import ConfigError
from cove_dist.models.cf.base import Recommender
from cove_dist.models.ctr.base import CTRHead
from cove_dist.models.sequential.base import SequentialModel
from cove_dist.tasks.configuration import load_run_config
from tests.unit.configuration.schemas import options


class Head(CTRHead):
    """A head outside the package."""

    def __init__(self, num_fields: int, embedding_dim: int, num_dense: int, *, width: int = 3) -> None:
        super().__init__()
        self.output = nn.Linear(num_fields * embedding_dim + num_dense, width)


@pytest.mark.parametrize("model", options("model"))
def test_a_configuration_holds_the_class_and_arguments_of_its_model(model: str) -> None:
    config, composed = load_run_config([f"model={model}"])
    assert config.model.section == composed.model
    assert config.model.name == composed.model._target_.rpartition(".")[2]
    assert set(config.model.arguments) == set(composed.model) - {"_target_"}


def test_a_head_outside_the_package_is_built_from_its_path_and_arguments() -> None:
    spec = ModelSpec.resolve({"_target_": f"{__name__}.Head", "width": 5})
    assert spec.build(CTRHead, 2, 4, 1).output.weight.shape == (5, 9)
    with pytest.raises(ConfigError, match=r"model\._target_ = .*Head: models of the task ctr are subclasses of .*Rec"):
        spec.build(Recommender, 2)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"_target_": "torch.nn.Linear"}, r"model\._target_ = torch\.nn\.Linear: is not imported; allowed are"),
        ({"_target_": f"{__name__}.Head", "width": "wide"}, r"model\.width = wide"),
        ({"_target_": f"{__name__}.Head", "depth": 2}, r"model\.depth: unknown key; allowed: width"),
    ],
)
def test_what_is_not_a_model_or_an_argument_is_refused(section: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelSpec.resolve(section)


def classes_in(package: object, base: type) -> list[type]:
    modules = [import_module(f"{package.__name__}.{found.name}") for found in iter_modules(package.__path__)]
    found = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    return sorted((kind for kind in found if issubclass(kind, base) and "forward" in vars(kind)), key=str)


@pytest.mark.parametrize("kind", classes_in(cove_dist.models.sequential, SequentialModel))
def test_what_a_sequential_model_declares_is_what_its_forward_takes(kind: type[SequentialModel]) -> None:
    parameters = inspect.signature(kind.forward).parameters
    assert kind.reads_masked_items == ("masked" in parameters)
    assert kind.reads_owner == ("owner" in parameters)
    assert (kind.decoding == "parallel") == ("num_targets" in parameters)


@pytest.mark.parametrize("kind", classes_in(cove_dist.models.ctr, CTRHead))
def test_a_head_declares_whether_its_forward_takes_first_order_weights_and_histories(kind: type[CTRHead]) -> None:
    parameters = list(inspect.signature(kind.forward).parameters)
    assert kind.uses_first_order == ("first_order" in parameters)
    assert kind.attends_to_histories == (parameters[-3:] == ["item", "entries", "present"])
