"""``cove report`` as a file: ``python launch/report.py``. Its help: ``--help``."""

import sys

from cove_dist.cli import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
