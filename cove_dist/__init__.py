"""Distributed training of ID-based recommenders with co-evolving vector quantization (COVE)."""
