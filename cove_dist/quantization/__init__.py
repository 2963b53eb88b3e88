"""The paper's cascaded vector quantizer. Depends only on torch."""

from cove_dist.quantization.classification import CodeClassifier
from cove_dist.quantization.quantizer import CascadedQuantizer, QuantizerOutput
from cove_dist.quantization.replicas import Replicas
from cove_dist.quantization.upkeep import CodebookMaintenance, UpkeepSettings
from cove_dist.quantization.usage import CodeUsage, dead_share, perplexity

CodebookUpkeep = CodebookMaintenance  # its former name, which programs outside of this package use

__all__ = [
    "CascadedQuantizer",
    "CodeClassifier",
    "CodeUsage",
    "CodebookMaintenance",
    "CodebookUpkeep",
    "QuantizerOutput",
    "Replicas",
    "UpkeepSettings",
    "dead_share",
    "perplexity",
]
