"""Score pairs with an exported model; it needs torch alone, and pyarrow to look up original ids.

cove export run=runs/mine what=[model]
python examples/serve_exported.py runs/mine/model
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import torch


def main(folder: Path, candidates: int = 500, repeats: int = 50) -> torch.Tensor:
    """Score candidates for the first user, and print the latency; return their scores."""
    about = json.loads((folder / "model.json").read_text())
    model = torch.export.load(folder / "model.pt2").module()
    names = [column["name"] for column in about["ids"]]
    ids = torch.zeros(candidates, len(names), dtype=torch.int64)
    items = next(i for i, column in enumerate(about["ids"]) if column["role"] == "item")
    ids[:, items] = torch.arange(candidates) % about["ids"][items]["num_seen"]
    others = [each for name, each in about["inputs"].items() if name != "ids"]
    inputs = [
        ids,
        *(torch.zeros(candidates, *each["shape"][1:], dtype=getattr(torch, each["dtype"])) for each in others),
    ]
    seconds = []
    with torch.no_grad():
        for _ in range(repeats):
            started = time.perf_counter()
            scores = model(*inputs)
            seconds.append(time.perf_counter() - started)
    cuts = statistics.quantiles(seconds, n=100)
    print(f"{candidates} candidates: p50 {1000 * cuts[49]:.2f} ms, p99 {1000 * cuts[98]:.2f} ms")
    print(about["outputs"]["model.pt2"]["meaning"])
    return scores


if __name__ == "__main__":
    main(Path(sys.argv[1]))
