"""``cove train`` as a file: ``torchrun --nproc_per_node=N launch/train.py``. Its help: ``--help``."""

import sys

from cove_dist.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
