"""Write the workflow that maintains the cache of a repository."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import maintainer
from maintainer.errors import UsageError
from maintainer.report.files import write_atomically
from maintainer.sanitize import printable
from maintainer.setup.workflows import SCHEDULES, CacheUse, find_root, read_workflows

PLACE = Path(".github", "workflows", "maintain-cache.yml")
_USES = f"{maintainer.REPOSITORY}@v0"
_NOBODY = "OWNER"
"""Before somebody publishes this project, this stands for the owner."""
_CRON = 'cron: "17 3 * * *"'
_MERGE = "maintained"


def make_workflow(name: str) -> str:
    """Return the workflow for a repository of some name.

    It runs at a minute of its own: GitHub delays schedules at minutes that many use.
    """
    text = (_examples() / PLACE.name).read_text(encoding="utf-8")
    minute = zlib.crc32(name.encode("utf-8", "surrogateescape")) % 60
    return text.replace(_CRON, f'cron: "{minute} 3 * * *"').replace(_USES, _pinned())


def _pinned() -> str:
    """Return this version of the Action: the commit of a release, or else its tag."""
    tag = f"v{maintainer.__version__}"
    pin = f"{maintainer.COMMIT} # {tag}" if maintainer.COMMIT else tag
    return f"{maintainer.REPOSITORY}@{pin}"


def _examples() -> Path:
    """Return where the workflows to copy are: in the package when installed, or beside it."""
    package = Path(maintainer.__file__).parent
    inside = package / "examples"
    return inside if inside.is_dir() else package.parent / "examples"


def find_repository(folder: Path) -> Path:
    """Return the root of the repository that contains a folder. Raises UsageError."""
    root = find_root(folder)
    if root is None:
        raise UsageError("this is not a git repository: change to the one whose builds are cached")
    return root


def write_workflow(root: Path, *, overwrite: bool) -> str:
    """Write the workflow, and return what was done. Raises UsageError if another one is there."""
    text, file = make_workflow(root.name), root / PLACE
    if file.is_file() and file.read_bytes() == text.encode():
        return f"{PLACE} is up to date"
    if file.exists() and not overwrite:
        raise UsageError(f"{PLACE} exists, and differs: --overwrite replaces it")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text)
    return f"{PLACE} was written: it runs once a day, and by hand"


def format_next_steps(root: Path) -> Iterator[str]:
    """Format what remains to be done by hand."""
    workflows = read_workflows(root)
    exports = [use for one in workflows if not one.imports(_MERGE) for use in one.exports]
    if not exports and any(one.exports for one in workflows):
        yield "1. All workflows that export a cache import the merge of all caches already."
    else:
        yield from _format_imports(exports)
    yield "2. Commit the workflow on the default branch: GitHub runs schedules only from there."
    yield "3. Run it once by hand with `Only report what would be done`, and read the job summary."
    yield f"   {SCHEDULES[:1].upper()}{SCHEDULES[1:]}."
    if not maintainer.COMMIT:
        yield (
            f"   This is not a release, so the workflow names the tag v{maintainer.__version__}. "
            "Pin it to the commit that you have reviewed."
        )
    if maintainer.REPOSITORY.startswith(f"{_NOBODY}/"):
        yield f"   {_NOBODY} stands for the account that this Action will be published by."


def _format_imports(exports: list[CacheUse]) -> Iterator[str]:
    """Format the line that these exports lack, and where it belongs."""
    yield "1. Let builds import the merge of all caches, with one more line:"
    yield ""
    yield "     cache-from: |"
    yield from (f"       {line}" for line in _imports(exports))
    yield f"       type=gha,scope={_MERGE}"
    yield ""
    if exports:
        places = ", ".join(f"{printable(use.file)}:{use.line}" for use in exports)
        yield f"   These lines export a cache, so it belongs next to them: {places}"
    else:
        yield "   No workflow here exports a cache with `cache-to: type=gha` yet."


def _imports(exports: list[CacheUse]) -> list[str]:
    """Return the lines of `cache-from` that are there already, most likely."""
    scopes = sorted({use.attributes.get("scope", "") for use in exports}) or [""]
    return [f"type=gha,scope={printable(scope)}" if scope else "type=gha" for scope in scopes]
