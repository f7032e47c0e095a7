"""Collect the documents for the site: `python config/site/collect.py FOLDER`.

On GitHub, documents are in two folders, and link to files of the repository. On the site, they are
in one, and such links lead to GitHub.
"""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from maintainer import REPOSITORY  # noqa: E402 - it is not installed where the site is built

_LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[#)])")
_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def collect(folder: Path) -> None:
    """Write all documents, and the configuration, to a folder."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    names = {one: "index.md" if one.name == "README.md" else one.name for one in documents}
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pages").mkdir(parents=True)
    for document, name in names.items():
        (folder / "pages" / name).write_text(_with_links(document, names), encoding="utf-8")
    shutil.copy(Path(__file__).with_name("zensical.toml"), folder)


def _with_links(document: Path, names: dict[Path, str]) -> str:
    """Return a document whose links lead to pages of the site, or to GitHub."""

    def lead(match: re.Match[str]) -> str:
        target = (document.parent / match[1]).resolve()
        if target in names:
            return names[target]
        view = "raw" if target.suffix == ".png" else "blob"
        return f"https://github.com/{REPOSITORY}/{view}/main/{target.relative_to(ROOT)}"

    text, blocks = document.read_text(encoding="utf-8"), list[str]()

    def keep(match: re.Match[str]) -> str:
        blocks.append(match[0])
        return f"\0{len(blocks) - 1}\0"

    linked = _LINK.sub(lead, _BLOCK.sub(keep, text))
    return re.sub(r"\0(\d+)\0", lambda match: blocks[int(match[1])], linked)


if __name__ == "__main__":
    collect(Path(sys.argv[1]).resolve())
