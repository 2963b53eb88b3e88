"""``cove cluster_items`` as a file: ``python launch/cluster_items.py``. Its help: ``--help``."""

import sys

from cove_dist.cli import main

if __name__ == "__main__":
    main(["cluster_items", *sys.argv[1:]])
