"""Losses over large vocabularies: in chunks, over ranks, or over a sample. Independent of models and TorchRec."""

from cove_dist.losses.sampled import sampled_cross_entropy
from cove_dist.losses.vocabulary import Vocabulary, vocabulary_cross_entropy

__all__ = ["Vocabulary", "sampled_cross_entropy", "vocabulary_cross_entropy"]
