"""Compositions for tests: the shipped YAML files are read and merged once per process, which Hydra does every time."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from cove_dist.config_folders import config_folder

_read = ConfigRepository.load_config
_merge = ConfigLoaderImpl._compose_config_from_defaults_list
_list = config_loader_impl.create_defaults_list


def remember_compositions(patch: pytest.MonkeyPatch) -> None:
    """Keep what is read from ``configs/``, listed and merged for each choice of groups; overrides are applied as ever.

    Files that a test writes may change: they are read each time, and nothing is kept of what is merged with them.
    """
    read: dict[str, tuple[Any, bytes]] = {}
    lists: dict[str, DefaultsList] = {}
    merged: dict[str, bytes] = {}
    changes = False  # whether the reader changes what it reads

    def load_config(repository: ConfigRepository, config_path: str) -> Any:
        if not _of_shipped_files(repository) and not (config_folder() / f"{config_path}.yaml").is_file():
            return _read(repository, config_path)
        if config_path not in read:
            result = _read(repository, config_path)
            read[config_path] = result, pickle.dumps(result)
        result, copied = read[config_path]
        return pickle.loads(copied) if changes else result

    def list_defaults(
        repo: CachingConfigRepository, config_name: str | None, overrides_list: list[Override], **options: bool
    ) -> DefaultsList:
        given = Overrides(repo=repo, overrides_list=overrides_list)
        groups = [each.input_line for each in overrides_list if each not in given.config_overrides]
        choice = repr((config_name, groups, options))
        if not _of_shipped_files(repo) or choice not in lists:
            found = _list(repo, config_name, overrides_list, **options)
            if not _of_shipped_files(repo):
                return found
            lists[choice] = found
        return replace(lists[choice], config_overrides=given.config_overrides)

    def merge(loader: ConfigLoaderImpl, defaults: list[Any], repo: CachingConfigRepository) -> DictConfig:
        nonlocal changes
        choice = repr(defaults) if _of_shipped_files(repo) else None
        if choice in merged:
            return pickle.loads(merged[choice])
        repo.cache.clear()  # it holds what is remembered, which merging would change
        changes = True
        try:
            found = _merge(loader, defaults, repo)
        finally:
            changes = False
        if choice is not None:
            merged[choice] = pickle.dumps(found)
        return found

    patch.setattr(ConfigRepository, "load_config", load_config)
    patch.setattr(config_loader_impl, "create_defaults_list", list_defaults)
    patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", merge)


def _of_shipped_files(repository: Any) -> bool:
    return [source.path for source in repository.get_sources() if source.scheme() == "file"] == [str(config_folder())]
