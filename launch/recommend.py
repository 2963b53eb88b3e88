"""``cove recommend`` as a file: ``torchrun --nproc_per_node=N launch/recommend.py``. Its help: ``--help``."""

import sys

from cove_dist.cli import main

if __name__ == "__main__":
    main(["recommend", *sys.argv[1:]])
