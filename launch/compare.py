"""``cove compare`` as a file: ``python launch/compare.py``. Its help: ``--help``."""

import sys

from cove_dist.cli import main

if __name__ == "__main__":
    main(["compare", *sys.argv[1:]])
