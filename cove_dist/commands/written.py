"""The command that is written with results, so that they can be made again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable

from cove_dist import allowed_packages
from cove_dist.commands import OWN_CONFIGS
from cove_dist.config_folders import own_folders


def written_command(name: str, arguments: Iterable[str]) -> str:
    """Return a command line with the folders and packages of one's own, which `cove_dist.cli` took from it.

    Folders below the working directory are relative to it.

    Args:
        name: The subcommand.
        arguments: Its arguments.
    """
    flags = [f"{OWN_CONFIGS}={_shown(str(folder))}" for folder in own_folders()]
    if packages := allowed_packages.own_packages():
        flags.append(f"{allowed_packages.KEY}=[{','.join(packages)}]")
    return shlex.join(["cove", name, *flags, *arguments])


def _shown(folder: str) -> str:
    relative = os.path.relpath(folder)
    return folder if relative.startswith(os.pardir) else relative
