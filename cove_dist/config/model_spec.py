"""The model that a configuration names: its class and its checked arguments."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, TypeVar

from cove_dist.config.checks import check_arguments, construct, target
from cove_dist.errors import ConfigError
from cove_dist.models.base import Model

M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class ModelSpec:
    """A model's class and arguments, resolved once when a configuration is checked.

    Attributes:
        kind: The class, whose attributes say what the model can do.
        arguments: The keyword arguments of the section ``model``, converted to their annotated types.
        section: The section ``model`` as composed, which configuration files and checkpoints hold.

    Example:
        >>> spec = ModelSpec.resolve({"_target_": "cove_dist.models.ctr.dcn.DCN", "cross_layers": 2})
        >>> spec.name, spec.arguments, spec.kind.task
        ('DCN', {'cross_layers': 2}, 'ctr')
    """

    kind: type[Model]
    arguments: dict[str, Any]
    section: dict[str, Any]

    @classmethod
    def resolve(cls, section: dict[str, Any]) -> ModelSpec:
        """Import the class that a section names, and check its arguments against its signature.

        Args:
            section: ``_target_``, the path of the class, and the arguments.

        Raises:
            ConfigError: The class is not a model, or an argument is unknown, missing or not of its type and range.
        """
        kind = model_class(section)
        arguments = {name: value for name, value in section.items() if name != "_target_"}
        return cls(kind, check_arguments(kind, arguments, "model"), section)

    def with_defaults(self, section: dict[str, Any]) -> dict[str, Any]:
        """Return a section of this class, another run's say, with the constructor's defaults of what it leaves out."""
        parameters = inspect.signature(self.kind).parameters.values()
        defaults = {
            each.name: list(each.default) if isinstance(each.default, tuple) else each.default
            for each in parameters
            if each.kind is each.KEYWORD_ONLY and each.default is not each.empty
        }
        return defaults | section

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.kind.__name__

    def kind_of(self, base: type[M]) -> type[M]:
        """Return the class, which must be a subclass of a task's base class.

        Raises:
            ConfigError: The class is not one.
        """
        if not issubclass(self.kind, base):
            raise ConfigError(
                f"model._target_ = {self.section['_target_']}: models of the task {self.kind.task} are subclasses of"
                f" {base.__module__}.{base.__name__}"
            )
        return self.kind

    def build(self, base: type[M], *sizes: int) -> M:
        """Build the model from sizes, in the order of its constructor, and the checked arguments.

        Args:
            base: The base class of the task's models.
            sizes: The leading arguments of the constructor.

        Raises:
            ConfigError: The class is not a subclass of ``base``, or the constructor refuses an argument.
        """
        return construct(self.kind_of(base), "model", *sizes, **self.arguments)


def model_class(section: dict[str, Any]) -> type[Model]:
    """Import the class that the section ``model`` names.

    Raises:
        ConfigError: There is no such class, or it is not a model.
    """
    kind, _ = target(section, "model")
    if not issubclass(kind, Model):
        raise ConfigError(
            f"model._target_ = {section['_target_']}: is not a model; allowed are subclasses of"
            f" {Model.__module__}.{Model.__name__}"
        )
    return kind
