"""Checks of plain values against typed settings, and of a class's arguments against its signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar, cast, get_type_hints

from hydra.utils import get_class
from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model

from cove_dist.allowed_packages import is_allowed, refuse_target
from cove_dist.config.messages import describe, shown
from cove_dist.config.yaml_files import plain, read_yaml
from cove_dist.config_folders import find_file, options
from cove_dist.errors import ConfigError

T = TypeVar("T")


def check(kind: type[T], values: dict[str, Any]) -> T:
    """Build a settings dataclass from plain values; a `ConfigError` lists every wrong key."""
    try:
        return cast(T, _validator(cast(Any, kind)).validate_python(values))
    except ValidationError as error:
        raise ConfigError(describe(error, values, kind)) from error


@cache
def _validator(kind: type) -> TypeAdapter[Any]:
    """Return what checks values against a dataclass; building it takes longer than a check."""
    return TypeAdapter(kind)


def target(section: dict[str, Any], key: str) -> tuple[type, dict[str, Any]]:
    """Import the class that a section's ``_target_`` names; return it and the section's other keys.

    Raises:
        ConfigError: The name is not in an allowed package (then nothing is imported), or is not that of a class there.
    """
    arguments = {name: value for name, value in section.items() if name != "_target_"}
    name = str(section.get("_target_"))
    if not is_allowed(name):
        raise refuse_target(name, key)
    try:
        kind = get_class(name)
    except Exception as error:  # Hydra raises ImportError, ValueError or its own, by the way the path is wrong
        reason = " ".join(str(error).split())
        raise ConfigError(f"{key}._target_ = {name}: not a class that can be imported: {reason}") from error
    if not is_allowed(f"{kind.__module__}.{kind.__name__}"):  # what an allowed module imports from elsewhere
        raise refuse_target(name, key)
    return kind, arguments


def check_arguments(function: Callable[..., Any], arguments: dict[str, Any], key: str) -> dict[str, Any]:
    """Check arguments against the annotations of keyword parameters; return them converted.

    Raises:
        ConfigError: An argument is unknown, missing, or not of its annotated type and range.
    """
    parameters = inspect.signature(function).parameters.values()
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
    keyword = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    defaults = {p.name: ... if p.default is inspect.Parameter.empty else p.default for p in keyword}
    known: dict[str, Any] = {name: (hints[name], default) for name, default in defaults.items()}
    model = create_model(
        function.__name__, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **known
    )
    try:
        checked = model.model_validate(arguments)
    except ValidationError as error:
        raise ConfigError(describe(error, arguments, {name: hints[name] for name in known}, (key,))) from error
    return {name: getattr(checked, name) for name in arguments}


def construct(kind: type[T], key: str, *sizes: Any, **arguments: Any) -> T:
    """Build a class whose constructor checks what types cannot say, such as that one argument divides another.

    Raises:
        ConfigError: The constructor refused an argument: the message of its ValueError, under the section's key.
    """
    try:
        return kind(*sizes, **arguments)
    except ValueError as error:
        raise ConfigError(f"{key}.{error}") from error


@dataclass(frozen=True)
class Component(Generic[T]):
    """A class that a section names by ``_target_``, such as a loss, with its checked arguments.

    Attributes:
        kind: The class.
        arguments: The section's other keys, converted to the annotated types of the constructor.
        key: Key of the section.
    """

    kind: type[T]
    arguments: dict[str, Any]
    key: str

    @classmethod
    def resolve(cls, base: type[T], section: dict[str, Any], key: str, group: str) -> Component[T]:
        """Import the class of a section and check the arguments against its signature.

        Args:
            base: Base class that the class must derive from.
            section: ``_target_`` and arguments.
            key: Key of the section.
            group: The group whose files hold such sections.

        Raises:
            ConfigError: The class cannot be imported or does not derive from ``base``, or an argument is wrong.
        """
        kind, arguments = target(section, key)
        if not issubclass(kind, base):
            allowed = [*_options(group, base), f"subclasses of {base.__module__}.{base.__name__}"]
            raise ConfigError(
                f"{key}._target_ = {section['_target_']}: does not fit this run; allowed: {', '.join(allowed)}"
            )
        return cls(kind, check_arguments(kind, arguments, key), key)

    def build(self, *sizes: Any) -> T:
        """Build the object from leading arguments and the checked ones.

        Raises:
            ConfigError: The constructor refuses an argument.
        """
        return construct(self.kind, self.key, *sizes, **self.arguments)


def _options(group: str, base: type) -> list[str]:
    """Return the options of a group whose class derives from a base class, as settings."""
    found = []
    for option in options(group):
        path = find_file(f"{group}/{option}")
        with suppress(ConfigError):  # a class that cannot be imported here is no advice
            if path is not None and issubclass(target(plain(read_yaml(path)), group)[0], base):
                found.append(f"{group}={option}")
    return found


def refuse_unused(kind: type, arguments: dict[str, Any], unused: dict[str, str], key: str) -> None:
    """Refuse arguments that differ from their defaults though they do nothing.

    Args:
        kind: The class, whose signature has the defaults.
        arguments: Arguments of its constructor.
        unused: Names of those that do nothing, and why.
        key: Key of the section.

    Raises:
        ConfigError: An argument would do nothing; the message names it and its default.
    """
    for name, why in unused.items():
        usual = inspect.signature(kind).parameters[name].default
        value = arguments.get(name, usual)
        if list(value) != list(usual):
            raise ConfigError(f"{key}.{name} = {shown(value)}: would do nothing: {why}; allowed: {shown(usual)}")
