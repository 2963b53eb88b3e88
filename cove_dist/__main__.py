"""``python -m cove_dist``, and ``torchrun … -m cove_dist``."""

from cove_dist.cli import main

if __name__ == "__main__":
    main()
