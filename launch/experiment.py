"""``cove experiment`` as a file: ``python launch/experiment.py``. Its help: ``--help``."""

import sys

from cove_dist.cli import main

if __name__ == "__main__":
    main(["experiment", *sys.argv[1:]])
