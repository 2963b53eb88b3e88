"""Train a model on a prepared data set, on one device or, under torchrun, on many.

cove train experiment=movielens_cove_deepfm trainer.debug=true
torchrun --nproc_per_node=4 -m cove_dist train data=movielens_100k model=deepfm quantizer=cove output=runs/mine
"""

from __future__ import annotations

from collections.abc import Sequence

from cove_dist.training import program


def run(arguments: Sequence[str]) -> None:
    program.train(arguments)
