"""``cove prepare`` as a file: ``python launch/prepare.py``. Its help: ``--help``."""

import sys

from cove_dist.cli import main

if __name__ == "__main__":
    main(["prepare", *sys.argv[1:]])
