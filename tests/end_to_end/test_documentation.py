"""The pages of docs/ as MkDocs builds them, with the API reference from docstrings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_every_page_is_in_the_navigation_and_exists() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = [page for entry in settings["nav"] for page in entry.values()]
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def broken_links(site: Path) -> list[str]:
    """Links of pages to files that the site does not have."""
    return [
        f"{page.relative_to(site)}: {link}"
        for page in site.rglob("index.html")
        for link in re.findall(r'(?:href|src)="([^"#?]+)', page.read_text())
        if not re.match(r"\w+:|/", link) and not (page.parent / link).exists()
    ]


def test_the_site_is_built_without_a_warning_and_documents_every_name(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    assert (site / "index.html").is_file()
    assert broken_links(site) == []
    page = (site / "api" / "index.html").read_text()
    names = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(), flags=re.MULTILINE)
    members = [f"cove_dist.api.{name}" for name in ("prepare", "plan", "train", "load")]
    members.append("cove_dist.inference.run.Run.recommend")
    assert len(names) > 10
    for name in [*members, *(name for name in names if name != "cove_dist.api")]:
        assert f'id="{name}"' in page, name
