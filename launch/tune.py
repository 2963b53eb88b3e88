"""``cove tune`` as a file: ``python launch/tune.py``. Its help: ``--help``."""

import sys

from cove_dist.cli import main

if __name__ == "__main__":
    main(["tune", *sys.argv[1:]])
