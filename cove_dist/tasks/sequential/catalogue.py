"""Unsharded item and owner tables on every rank, for decoding.

Memory is that of the tables, or twice that with a quantizer: 27 MB for the 104,695 items of Spotify at d = 64.
"""

from __future__ import annotations

import torch

from cove_dist.embeddings.lookup import whole_table
from cove_dist.tasks.sequential.model import SequentialTaskModel
from cove_dist.tasks.sequential.ranking import Catalogue
from data_pipeline.schema import OWNER, Schema
from data_pipeline.streaming.vocabulary import VOCABULARY, batch_keys

_CHUNK = 65_536  # rows quantized at a time


@torch.no_grad()
def item_catalogue(model: SequentialTaskModel, schema: Schema, device: torch.device) -> Catalogue:
    """Return the catalogue of all items, fused if the model has a quantizer. Collective."""
    raw = whole_table(model.tables, batch_keys(schema), VOCABULARY, schema.entity("item").num_rows, device)
    objective, fed, seen = model.objective, raw, schema.entity("item").num_seen
    categories = None if objective.categories is None else objective.categories.numbers[:seen]
    if objective.quantizers:
        quantizer = objective.quantizers["item"]
        parts = [quantizer(part) for part in raw.split(_CHUNK)]
        fed = torch.cat([part.fused for part in parts])
        categories = torch.cat([part.codes[:, -1] for part in parts])[:seen] if categories is None else categories
    scored = fed if objective.settings.fuse_output else raw
    if objective.categories is not None:
        fed = fed + objective.categories(torch.arange(len(fed), device=device))
    return Catalogue(fed, scored[:seen], categories, objective.two_stage, objective.item_bias)


@torch.no_grad()
def owner_table(model: SequentialTaskModel, schema: Schema, device: torch.device) -> torch.Tensor | None:
    """Return the embeddings of all owners ``[num_rows, d]``, or None if the model does not use them. Collective.

    Those of owners without a training row are zero, as if none were given: their rows are as they were drawn.
    """
    if not model.objective.uses_owner:
        return None
    [owner] = [column for column in schema.categorical if column.name == OWNER]
    table = whole_table(model.tables, batch_keys(schema), OWNER, owner.num_rows, device)
    table[owner.num_seen :] = 0.0
    return table
