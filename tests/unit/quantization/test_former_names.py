"""Names that programs outside of the package import."""

from __future__ import annotations

from cove_dist import quantization
from cove_dist.quantization import CodebookMaintenance, MaintenanceSettings


def test_the_former_names_of_the_maintenance_stay() -> None:
    assert quantization.CodebookUpkeep is CodebookMaintenance
    assert quantization.UpkeepSettings is MaintenanceSettings
