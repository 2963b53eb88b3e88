"""Ten ids of each of the largest codes, with their titles and most common category where these are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cove_dist.report.categories import Labelled
from cove_dist.report.codes import EntityCodes

_CODES, _IDS = 6, 10


@dataclass(frozen=True)
class CodeExample:
    """One code of an entity's coarsest level.

    Attributes:
        entity: user or item.
        level: from 1.
        code: the code.
        size: Number of its ids that training saw.
        share: Share of all such ids.
        category: Its most common category, with its share inside the code and among all ids with a category; empty if
            no category is known.
        ids: Ten of its ids drawn at random, as titles where they are known.
    """

    entity: str
    level: int
    code: int
    size: int
    share: float
    category: str
    ids: tuple[str, ...]


def code_examples(
    codes: EntityCodes, labelled: Sequence[Labelled], titles: Mapping[str, str], seed: int
) -> list[CodeExample]:
    """Return the largest codes of the coarsest level, the largest first.

    Args:
        codes: Codes of an entity.
        labelled: Its category columns; the first one is shown.
        titles: Titles by original id, as text.
        seed: Seed of the draw of ids.
    """
    level = len(codes.levels)
    random, of_ids, sizes = np.random.default_rng(seed), codes.codes[:, level - 1], codes.sizes(level)
    examples = []
    for code in np.argsort(-sizes, kind="stable")[:_CODES]:
        members = np.flatnonzero(of_ids == code)
        if len(members) == 0:
            break
        drawn = np.sort(random.permutation(members)[:_IDS])
        names = [str(codes.original_ids[int(row)].as_py()) for row in drawn]
        ids = tuple(titles.get(name, name) for name in names)
        category = _category(labelled[0], int(code)) if labelled else ""
        examples.append(
            CodeExample(codes.entity, level, int(code), len(members), len(members) / len(of_ids), category, ids)
        )
    return examples


def _category(labelled: Labelled, code: int) -> str:
    """Describe the most common category of a code; empty if none of its ids has one."""
    inside = labelled.codes[:, -1] == code
    if not inside.any():
        return ""
    counts = np.bincount(labelled.categories[inside[labelled.ids]], minlength=len(labelled.names))
    most = int(counts.argmax())
    overall = np.bincount(labelled.categories, minlength=len(labelled.names))[most] / len(labelled.codes)
    return f"{labelled.names[most]}: {counts[most] / inside.sum():.0%} (of all: {overall:.0%})"
