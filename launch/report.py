"""``cove report`` as a file: ``torchrun --nproc_per_node=N launch/report.py``. Its help: ``--help``."""

import sys

from cove_dist.cli import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
