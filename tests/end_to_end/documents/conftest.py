"""The folder in which the commands of the documents run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.interactions import write_raw as write_interactions
from tests.unit.data.playlist_files import raw_playlists, write_release


@pytest.fixture(scope="module")
def workplace(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data that the commands name."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(prepared, folder / "data" / "movielens_100k")
    (folder / "logs").mkdir()
    rows = range(2000)
    log = {
        "uid": [i % 40 for i in rows],
        "iid": [i * i % 37 for i in rows],
        "clicked": [i % 3 % 2 for i in rows],
        "ts": list(rows),
        "device": [f"d{i % 3}" for i in rows],
        "country": [f"c{i % 5}" for i in rows],
        "price": [float(i % 11) for i in rows],
        "stars": [i % 5 + 1 for i in rows],
        "liked": [i % 7 % 2 for i in rows],
        "importance": [i % 4 / 2 for i in rows],
    }
    pq.write_table(pa.table(log), folder / "logs" / "day1.parquet")
    write_interactions(folder / "raw" / "toys")
    write_release(folder / "raw" / "aotm", raw_playlists())
    lines = ["uid,iid,stars", *(f"{log['uid'][i]},{log['iid'][i]},{log['stars'][i]}" for i in rows)]
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n")
    shop = ["uid,iid,clicked,ts,session,tags,clicked_before"]
    for i in rows:
        tags, before = "|".join(["red", "new", "old"][: i % 4]), "|".join(f"i{j % 37}" for j in range(i, i + i % 5))
        shop.append(f"u{i // 5 % 40},i{log['iid'][i]},{log['clicked'][i]},{i // 5},s{i // 5},{tags},{before}")
    (folder / "shop.csv").write_text("\n".join(shop) + "\n")
    (folder / "new_users.csv").write_text("user_id,item_id\nanna,1001\nanna,1004\nbert,1002\n")
    ratings = [f"{log['uid'][i] + 1}\t{log['iid'][i] + 1}\t{log['stars'][i]}\t{i}" for i in rows]
    (folder / "u.data").write_text("\n".join(ratings) + "\n")
    return folder
