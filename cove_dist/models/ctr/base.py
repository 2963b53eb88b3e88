"""The base class of click-through rate heads.

Shapes: ``B`` batch, ``F`` fields (columns of one id, and of lists of ids, which are pooled), ``d`` embedding dimension,
``D`` dense columns; ``S`` columns of lists that a head attends to, ``T`` entries of the longest list.
"""

from __future__ import annotations

from typing import ClassVar

from cove_dist.models.base import Model


class CTRHead(Model):
    """Map ``(fields [B, F, d], dense [B, D])`` to logits ``[B]``.

    The constructor of a head takes ``num_fields`` (``F``), ``embedding_dim`` (``d``), ``num_dense`` (``D``), and its
    keyword arguments.

    Attributes:
        uses_first_order: Whether ``forward`` also takes ``first_order [B, F]``, the scalar weight of each id.
        attends_to_histories: Whether ``forward`` also takes the lists with ids of items, entry by entry, which are then
            not among its fields: ``item [B, d]``, the candidate; ``entries [B, S, T, d]``, the oldest first and zero
            behind a list; and ``present``, bool ``[B, S, T]``. ``num_fields`` counts these lists as well.
    """

    task = "ctr"
    compiles = True
    uses_first_order: ClassVar[bool] = False
    attends_to_histories: ClassVar[bool] = False

    @staticmethod
    def unused(num_fields: int, num_dense: int) -> dict[str, str]:
        """Return the arguments that have no effect with these columns, and the reason for each.

        Args:
            num_fields: Number of id fields ``F``.
            num_dense: Number of dense columns ``D``.
        """
        return {}
