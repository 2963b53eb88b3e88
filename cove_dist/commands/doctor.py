"""Check the installation, or complete it.

cove doctor                     what is installed, and all that is missing
cove doctor --install cpu       torch, fbgemm and torchrec for CPU, of versions that were tested together
cove doctor --install cuda      the same for CUDA
cove doctor --install cpu --dry-run
"""

from __future__ import annotations

from collections.abc import Sequence

from cove_dist import doctor


def run(arguments: Sequence[str]) -> None:
    doctor.main(arguments)
