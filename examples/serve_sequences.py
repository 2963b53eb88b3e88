"""Recommend the next items of a sequence with an exported sequential model; it needs torch alone.

cove export run=runs/mine what=[model]
python examples/serve_sequences.py runs/mine/model 3 1 4
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch


def main(folder: Path, sequence: list[int], k: int = 10) -> tuple[list[int], list[float]]:
    """Return the k best next items, without those of the sequence, and their scores; items are encoded ids.

    ``ids/<item column>.parquet`` has the original id of every encoded one.
    """
    about = json.loads((folder / "model.json").read_text())
    if "owner" in about["inputs"]:
        raise SystemExit("this model also reads the owner of a sequence: give its encoded id as a third input")
    model = torch.export.load(folder / "model.pt2").module()
    slots = about["inputs"]["items"]["shape"][1]
    newest = sequence[-slots:]
    items = torch.zeros(1, slots, dtype=torch.int64)
    items[0, : len(newest)] = torch.tensor(newest)
    with torch.no_grad():
        scores = model(items, torch.tensor([len(newest)]))[0]  # one score for every item seen in training
    seen = [item for item in sequence if item < len(scores)]
    scores[seen] = -torch.inf
    best, listed = scores.topk(k)
    print(dict(zip(listed.tolist(), best.tolist(), strict=True)))
    return listed.tolist(), best.tolist()


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(item) for item in sys.argv[2:]])
