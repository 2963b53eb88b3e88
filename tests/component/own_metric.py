"""A metric of one's own in a module and a group file that only one test has, so that nothing has imported it before."""

from __future__ import annotations

from pathlib import Path

import pytest

from cove_dist.allowed_packages import ALLOWED
from cove_dist.config_folders import OWN_FOLDERS

MODULE = """
from cove_dist.evaluation.declarations import Family, declares
from cove_dist.evaluation.own import SampleMetric


@declares(Family("{name}", "{title}", higher_is_better=False))
class Mine(SampleMetric):
    def values(self, logits, labels):
        return (logits.sigmoid() - labels).abs()
"""


def write_metric(folder: Path, patch: pytest.MonkeyPatch, name: str) -> None:
    """Write ``metric=NAME``, of which less is better, and allow its module."""
    title = name.replace("_", " ").capitalize()
    (folder / f"module_of_{name}.py").write_text(MODULE.format(name=name, title=title))
    option = folder / "groups" / "metric" / f"{name}.yaml"
    option.parent.mkdir(parents=True)
    option.write_text(f"# @package evaluation.metrics.{name}\n_target_: module_of_{name}.Mine\n")
    patch.syspath_prepend(str(folder))
    patch.setenv(OWN_FOLDERS, str(folder / "groups"))
    patch.setenv(ALLOWED, f"module_of_{name}")
