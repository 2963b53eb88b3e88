"""``cove popularity`` as a file: ``python launch/popularity.py``. Its help: ``--help``."""

import sys

from cove_dist.cli import main

if __name__ == "__main__":
    main(["popularity", *sys.argv[1:]])
