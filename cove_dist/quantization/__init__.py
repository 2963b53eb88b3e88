"""The paper's cascaded vector quantizer. Depends only on torch."""

from cove_dist.quantization.classification import CodeClassifier
from cove_dist.quantization.maintenance import CodebookMaintenance, MaintenanceSettings
from cove_dist.quantization.quantizer import CascadedQuantizer, QuantizerOutput
from cove_dist.quantization.replicas import Replicas
from cove_dist.quantization.usage import CodeUsage, dead_share, perplexity

CodebookUpkeep, UpkeepSettings = CodebookMaintenance, MaintenanceSettings  # former names, for programs that use them

__all__ = [
    "CascadedQuantizer",
    "CodeClassifier",
    "CodeUsage",
    "CodebookMaintenance",
    "CodebookUpkeep",
    "MaintenanceSettings",
    "QuantizerOutput",
    "Replicas",
    "UpkeepSettings",
    "dead_share",
    "perplexity",
]
