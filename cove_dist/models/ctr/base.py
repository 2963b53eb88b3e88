"""The base class of the heads of click-through rate prediction.

Shapes: ``B`` batch, ``F`` id fields, ``d`` embedding dimension, ``D`` dense columns.
"""

from __future__ import annotations

from typing import ClassVar

from cove_dist.models.base import Model


class CTRHead(Model):
    """Map ``(fields [B, F, d], dense [B, D])`` to logits ``[B]``.

    A head is built from ``num_fields`` (``F``), ``embedding_dim`` (``d``) and ``num_dense`` (``D``), then its keyword
    arguments.

    Attributes:
        uses_first_order: Whether ``forward`` also takes ``first_order [B, F]``, the scalar weight of each id.
    """

    task = "ctr"
    uses_first_order: ClassVar[bool] = False

    @staticmethod
    def unused(num_fields: int, num_dense: int) -> dict[str, str]:
        """Return the arguments that do nothing with these columns, and the reason for each.

        Args:
            num_fields: ``F``.
            num_dense: ``D``.
        """
        return {}
