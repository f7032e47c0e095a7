"""The site of the documents: every document is a page of it, and no link leads out by mistake.

`make site` builds it, with a generator that checks all links; CI does so. This needs no generator.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from maintainer import REPOSITORY
from tests.documents import DOCS, ROOT

_SITE = ROOT / "config" / "site"
_LINK = re.compile(r"\]\(([^)\s#]+)")
_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def _pages(nav: list[dict[str, object]]) -> list[str]:
    found: list[str] = []
    for one in nav:
        for target in one.values():
            found += [target] if isinstance(target, str) else _pages(target)  # type: ignore[arg-type]
    return found


def test_every_document_is_a_page_and_links_lead_to_pages_or_to_github(tmp_path: Path) -> None:
    subprocess.run([sys.executable, _SITE / "collect.py", tmp_path / "site"], check=True)

    pages = {one.name: one.read_text() for one in (tmp_path / "site" / "pages").iterdir()}
    nav = _pages(tomllib.loads((_SITE / "zensical.toml").read_text())["project"]["nav"])
    assert sorted(nav) == sorted(pages)
    assert {one.name for one in DOCS.glob("*.md")} < pages.keys()
    for text in pages.values():
        for link in _LINK.findall(_BLOCK.sub("", text)):
            file = link.removeprefix(f"https://github.com/{REPOSITORY}/blob/main/")
            assert link in pages or link.startswith("https://"), link
            assert file == link or (ROOT / file).exists(), link
