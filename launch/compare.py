"""One table of several evaluated runs. Runs that differ only in their seed form one row: mean ± standard deviation.

python launch/compare.py runs=[runs/movielens_deepfm,runs/movielens_cove_deepfm]
python launch/compare.py 'runs=runs/seeds/*'
"""

from __future__ import annotations

import glob
from collections.abc import Sequence

from rich.console import Console

from cove_dist.composition import compose_yaml
from cove_dist.errors import ConfigError
from launch.cli import run
from launch.tables import comparison_table, write_comparison


def main(arguments: Sequence[str] | None = None) -> None:
    run("python launch/compare.py", __doc__, "compare", compare, arguments)


def compare(overrides: Sequence[str]) -> None:
    config = compose_yaml("compare", overrides)
    patterns = [config.runs] if isinstance(config.runs, str) else list(config.runs)
    folders = [folder for pattern in patterns for folder in sorted(glob.glob(pattern))]
    if not folders:
        raise ConfigError(f"runs = {patterns}: no such folder; give run folders, or a pattern in quotes")
    Console().print(comparison_table(folders))
    if config.json is not None:
        write_comparison(folders, config.json)


if __name__ == "__main__":
    main()
