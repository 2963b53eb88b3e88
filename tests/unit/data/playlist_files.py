"""Small files like those of the release of playlists."""

from __future__ import annotations

import pickle
import random
import zipfile
from pathlib import Path


def raw_playlists(playlists: int = 300, items: int = 60, longest: int = 24, seed: int = 0) -> dict[int, list[int]]:
    """Make playlists of neighboring items, with repeats; some are too short, and some items too rare."""
    rng = random.Random(seed)
    made = {}
    for number in range(1, playlists + 1):
        centre = rng.randrange(items)
        length = rng.randrange(3, longest)
        made[number] = [1 + int(rng.gauss(centre, 4)) % items for _ in range(length)]
        if rng.random() < 0.3:
            made[number].append(1000 + rng.randrange(80))
    return made


def write_release(folder: Path, playlists: dict[int, list[int]], name: str = "AotM") -> Path:
    """Write the zip with its stray folder, and the creators: user i modulo 7 for playlist i, none for 1 to 5."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{number} {item}\n" for number, items in playlists.items() for item in items)
    with zipfile.ZipFile(folder / f"{name}.txt.zip", "w") as archive:
        archive.writestr(f"{name}.txt", lines)
        archive.writestr(f"__MACOSX/._{name}.txt", "not data")
    creators = {number: number % 7 for number in playlists if number > 5}
    (folder / f"{name}_creator_list.dict").write_bytes(pickle.dumps(creators, protocol=0))
    return folder
