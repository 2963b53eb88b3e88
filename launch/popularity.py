"""``cove popularity`` as a file: ``torchrun --nproc_per_node=N launch/popularity.py``. Its help: ``--help``."""

import sys

from cove_dist.cli import main

if __name__ == "__main__":
    main(["popularity", *sys.argv[1:]])
