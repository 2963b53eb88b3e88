"""``cove semantic_ids`` as a file: ``python launch/semantic_ids.py``. Its help: ``--help``."""

import sys

from cove_dist.cli import main

if __name__ == "__main__":
    main(["semantic_ids", *sys.argv[1:]])
