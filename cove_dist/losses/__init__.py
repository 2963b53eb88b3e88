"""Losses over large vocabularies and of interactions. Independent of models and TorchRec."""

from cove_dist.losses.neighbor_pull import neighbor_pull
from cove_dist.losses.sampled import sampled_cross_entropy
from cove_dist.losses.vocabulary import Vocabulary, vocabulary_cross_entropy

__all__ = ["Vocabulary", "neighbor_pull", "sampled_cross_entropy", "vocabulary_cross_entropy"]
