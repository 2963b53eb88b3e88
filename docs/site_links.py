"""A hook of MkDocs: the site has only the pages of docs/, so links to other files become their paths."""

import re
from typing import Any

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])+)\]\(\.\./([^)#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    return _LINK.sub(_as_path, markdown)


def _as_path(link: re.Match[str]) -> str:
    _, text, path = link.groups()
    return f"`{path}`" if text.strip("`").rstrip("/") == path.rstrip("/") else f"{text} (`{path}` in the repository)"
