"""Packages from which a configuration may import classes by ``_target_``.

A run folder may come from someone else, and importing a module runs its code, so names are checked before they are
imported. Nothing here imports torch or Hydra, so that help and shell completion are fast.
"""

from __future__ import annotations

import os

from cove_dist.errors import ConfigError

KEY = "allow_targets"
ALLOWED = "COVE_ALLOW_TARGETS"  # an environment variable, so that child processes inherit it
_SHIPPED = ("cove_dist", "data_pipeline")


def allow_targets(*packages: str) -> None:
    """Allow classes of further packages or modules as ``_target_``, for this process and its children.

    Raises:
        ConfigError: A value is not the name of a package or module.
    """
    for package in packages:
        if not all(part.isidentifier() for part in package.split(".")):
            raise ConfigError(
                f"{KEY} = {package}: not the name of a package or module; give names, as {KEY}=[my_package]"
            )
    os.environ[ALLOWED] = ",".join(dict.fromkeys([*own_packages(), *packages]))


def allow_from_argument(value: str) -> None:
    """Read the value of ``allow_targets=[my_package, other.module]`` on a command line; see `allow_targets`."""
    names = value.removeprefix("[").removesuffix("]").split(",")
    allow_targets(*(name.strip(" '\"") for name in names if name.strip()))


def is_allowed(name: str) -> bool:
    """Return whether a dotted name is in an allowed package; names of private modules and attributes are not."""
    parts = name.split(".")
    public = all(part.isidentifier() and not part.startswith("_") for part in parts)
    return public and any(name.startswith(f"{package}.") for package in (*_SHIPPED, *own_packages()))


def refuse_target(name: str, key: str) -> ConfigError:
    """Return the error for a name that is not allowed."""
    package = name.split(".")[0]
    allowed = ", ".join((*_SHIPPED, *own_packages()))
    return ConfigError(
        f"{key}._target_ = {name}: is not imported; allowed are public classes of {allowed}. If the package is yours,"
        f" or you trust it, add {KEY}=[{package}] to the command; in Python set os.environ[{ALLOWED!r}] = {package!r}"
    )


def own_packages() -> list[str]:
    """Return the packages that were allowed besides the shipped ones."""
    return [package for package in os.environ.get(ALLOWED, "").split(",") if package]
