"""``cove export`` as a file: ``torchrun --nproc_per_node=N launch/export_codes.py``. Its help: ``--help``."""

import sys

from cove_dist.cli import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
