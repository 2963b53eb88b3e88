"""Distributed training of ID-based recommenders with co-evolving vector quantization (COVE)."""

__version__ = "0.1.0"
