"""The paper's cascaded vector quantizer. Depends on torch alone."""

from cove_dist.quantization.quantizer import CascadedQuantizer, QuantizerOutput
from cove_dist.quantization.usage import dead_share, perplexity

__all__ = ["CascadedQuantizer", "QuantizerOutput", "dead_share", "perplexity"]
