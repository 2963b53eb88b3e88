"""BPRMF (Rendle et al., UAI 2009): matrix factorization learned by Bayesian personalized ranking."""

from __future__ import annotations

from cove_dist.models.cf.base import InnerProductRecommender
from cove_dist.types import NonNegativeFloat


class BPRMF(InnerProductRecommender):
    """``score = user · item``.

    The quantizers apply to the looked-up embeddings: user and item are fused vectors (Figure 2b).

    Args:
        embedding_dim: Embedding dimension ``d``.
        regularization: L2 weight, the lambda of BPR-Opt.
    """

    has_parameters = False

    def __init__(self, embedding_dim: int, *, regularization: NonNegativeFloat = 0.0) -> None:
        super().__init__()
        self.regularization = regularization
