"""Train a model on a prepared data set, on one device or, under torchrun, on many.

python launch/train.py experiment=movielens_cove_deepfm trainer.debug=true
torchrun --nproc_per_node=4 launch/train.py data=movielens_100k model=deepfm quantizer=cove output=runs/mine
"""

from __future__ import annotations

from collections.abc import Sequence

from cove_dist.training.program import train
from launch.cli import run


def main(arguments: Sequence[str] | None = None) -> None:
    run("[torchrun --nproc_per_node=N] launch/train.py", __doc__, "train", train, arguments)


if __name__ == "__main__":
    main()
