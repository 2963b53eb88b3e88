"""The base class of every model."""

from __future__ import annotations

from typing import ClassVar

from torch import nn


class Model(nn.Module):
    """A single-device network on dense tensors, which a configuration names by ``model._target_``.

    Capabilities of a model are class attributes, here and in the base class of each task's models.

    Attributes:
        task: Name of the task that trains the model, set by the base class of the task's models.
        has_parameters: Whether the model has parameters other than its tables, trained by ``trainer.optimizer``.
        ranks_by_inner_product: Whether scores order items like ``query(user) · key(item)``, which an index can search.
        uses_precision: Whether ``trainer.precision`` applies; otherwise the model computes in float32.
        compiles: Whether ``trainer.compile`` applies.
    """

    task: ClassVar[str]
    has_parameters: ClassVar[bool] = True
    ranks_by_inner_product: ClassVar[bool] = False
    uses_precision: ClassVar[bool] = True
    compiles: ClassVar[bool] = False
