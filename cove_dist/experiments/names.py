"""Display names of models, quantizers and metrics, for tables and pictures of a paper."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cove_dist.config_folders import find_file
from cove_dist.evaluation.declarations import title
from cove_dist.experiments.grid import GridConfig

_QUANTIZERS = {"none": "base", "cove": "COVE"}


@dataclass(frozen=True)
class Names:
    """Display names of a grid.

    A model is called as its class, the quantizers ``none`` and ``cove`` "base" and COVE, a metric by its title; the
    grid's ``names`` come first.

    Attributes:
        given: Display names by name, from the grid.
        models: Display names of models.
    """

    given: dict[str, str]
    models: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, grid: GridConfig) -> Names:
        """Return the names of a grid, whose models choose an option of the group ``model`` or are called as one."""
        options = {name: next((o[6:] for o in os if o.startswith("model=")), name) for name, os in grid.models.items()}
        single = len(set(options.values())) == len(options)  # else two variants of one model would share a name
        classes = {name: _class_of(option) for name, option in options.items()} if single else {}
        return cls(grid.names, {name: found for name, found in classes.items() if found})

    def model(self, name: str) -> str:
        return self.given.get(name) or self.models.get(name, name)

    def quantizer(self, name: str) -> str:
        return self.given.get(name) or _QUANTIZERS.get(name, name.replace("_", " "))

    def metric(self, name: str) -> str:
        return self.given.get(name) or title(name)


def _class_of(option: str) -> str | None:
    """Return the name of the class that an option of the group ``model`` has as its target."""
    path = find_file(f"model/{option}")
    found = path and re.search(r"^_target_: *\S+\.(\w+)", path.read_text(), flags=re.MULTILINE)
    return found.group(1) if found else None
