"""``cove evaluate`` as a file: ``torchrun --nproc_per_node=N launch/evaluate.py``. Its help: ``--help``."""

import sys

from cove_dist.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
