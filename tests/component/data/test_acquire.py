"""Raw files at a path or URL, or else from the first mirror that answers. No test needs a network."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from data_pipeline.errors import DataError
from data_pipeline.preparation.acquire import Download, Wheel, acquire, cache_folder

MEMBER, TEXT = "package/data/ratings.tsv", "1\t2\t5\t0\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cove_dist"


def make_zip(path: Path, text: str = TEXT, **more: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for member, content in {MEMBER: text, **more}.items():
            file.writestr(member, content)
    return path


def download_of(archive: Path, sha256: str | None = None) -> Download:
    return Download(archive.as_uri(), sha256 or hashlib.sha256(archive.read_bytes()).hexdigest())


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Wheel:
    """Make a wheel in a folder that is the only index of pip."""
    information = {
        "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny-1.0.dist-info/RECORD": "",
    }
    make_zip(tmp_path / "index" / "tiny-1.0-py3-none-any.whl", **information)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return Wheel("tiny==1.0", "tiny-1.0-py3-none-any.whl", {MEMBER: hashlib.sha256(TEXT.encode()).hexdigest()})


def fetch(tmp_path: Path, source: str | None, *mirrors) -> tuple[Path, str, list[str]]:
    messages: list[str] = []
    (tmp_path / "scratch").mkdir(exist_ok=True)
    found, description = acquire(source, mirrors, tmp_path / "scratch", messages.append)
    return found, description, messages


def test_a_local_file_or_folder_is_used_in_place(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "u.data").write_text(TEXT)
    for path in (tmp_path / "here", tmp_path / "here" / "u.data"):
        assert fetch(tmp_path, str(path)) == (path, str(path), [])


def test_a_local_zip_is_unpacked(tmp_path):
    archive = make_zip(tmp_path / "data.zip")
    found, description, _ = fetch(tmp_path, str(archive))
    assert ((found / MEMBER).read_text(), description) == (TEXT, str(archive))


def test_a_url_of_the_user_is_downloaded(tmp_path, cache):
    archive = make_zip(tmp_path / "data.zip")
    found, description, _ = fetch(tmp_path, archive.as_uri())
    assert ((found / MEMBER).read_text(), description) == (TEXT, archive.as_uri())
    assert not cache.exists()  # without a checksum it must not be kept


def test_a_download_is_verified_and_cached(tmp_path, cache):
    archive = make_zip(tmp_path / "data.zip")
    mirror = download_of(archive)
    assert (fetch(tmp_path, None, mirror)[0] / MEMBER).read_text() == TEXT
    archive.unlink()
    assert (fetch(tmp_path, None, mirror)[0] / MEMBER).read_text() == TEXT
    assert [path.name for path in cache.iterdir()] == ["data.zip"]


def test_a_damaged_cached_copy_is_fetched_again(tmp_path, cache):
    archive = make_zip(tmp_path / "data.zip")
    fetch(tmp_path, None, download_of(archive))
    (cache / "data.zip").write_bytes(b"half a fi")
    assert (fetch(tmp_path, None, download_of(archive))[0] / MEMBER).read_text() == TEXT


def test_the_next_mirror_is_tried_and_the_failure_is_logged(tmp_path, cache, wheel):
    missing = Download((tmp_path / "missing.zip").as_uri(), sha256="0" * 64)
    found, description, messages = fetch(tmp_path, None, missing, wheel)
    assert ((found / MEMBER).read_text(), description) == (TEXT, "the wheel tiny==1.0")
    assert [m.split(":")[0] for m in messages] == [
        "downloading file",
        "not available",
        "downloading the wheel tiny==1.0",
    ]
    assert "missing.zip" in messages[1] and "No such file" in messages[1]
    assert [path.name for path in cache.iterdir()] == ["tiny-1.0-py3-none-any.whl"]


def test_a_wrong_checksum_is_refused_and_not_cached(tmp_path, cache):
    archive = make_zip(tmp_path / "data.zip")
    with pytest.raises(DataError, match=r"data\.zip: .* has the wrong checksum.*pass data\.source=PATH"):
        fetch(tmp_path, None, download_of(archive, sha256="0" * 64))
    assert not list(cache.iterdir())


@pytest.mark.parametrize("digests", [{MEMBER: "0" * 64}, {"package/other.tsv": "0" * 64}])
def test_a_wheel_with_other_contents_is_refused(tmp_path, wheel, digests):
    with pytest.raises(DataError, match=r"the wheel tiny==1\.0: the downloaded archive has the wrong checksum"):
        fetch(tmp_path, None, Wheel(wheel.requirement, wheel.filename, digests))


def test_when_no_mirror_answers_every_reason_is_reported(tmp_path, wheel):
    missing = Download((tmp_path / "missing.zip").as_uri(), sha256="0" * 64)
    absent = Wheel("absent==9.9", "absent-9.9-py3-none-any.whl", {})
    with pytest.raises(
        DataError, match=r"missing\.zip: .*No such file.*; the wheel absent==9\.9: pip download: .*absent"
    ):
        fetch(tmp_path, None, missing, absent)


def test_a_missing_source_and_a_broken_zip_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"gone\.zip: no such file or folder"):
        fetch(tmp_path, str(tmp_path / "gone.zip"))
    (tmp_path / "broken.zip").write_bytes(make_zip(tmp_path / "data.zip").read_bytes()[:40])
    with pytest.raises(DataError, match=r"broken\.zip: not a zip file, or a truncated one"):
        fetch(tmp_path, str(tmp_path / "broken.zip"))


def test_the_cache_is_in_the_home_folder_by_default(tmp_path, monkeypatch, cache):
    assert cache_folder() == cache
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "cove_dist"
