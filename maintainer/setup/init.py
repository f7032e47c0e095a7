"""Write the workflow that maintains the cache of a repository."""

import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import maintainer
from maintainer.errors import UsageError
from maintainer.report.files import write_atomically
from maintainer.sanitize import printable
from maintainer.settings.values import DEFAULT_STORE
from maintainer.setup.workflows import (
    ACTIONS,
    SCHEDULES,
    Cache,
    CacheUse,
    find_root,
    read_workflows,
)

FOLDER = Path(".github", "workflows")
_USES = f"{maintainer.REPOSITORY}@v0"
_NOBODY = "OWNER"
"""Before somebody publishes this project, this stands for the owner."""
_CRON = re.compile(r'cron: "\d+ 3 \* \* \*"')
_MERGE = "maintained"
_STORE = "registry://ghcr.io/octo/app-cache"
"""In the workflow to copy, this stands for the place of the cache."""
_GHCR = re.compile(r"registry://(ghcr\.io/[a-z0-9._-]+(?:/[a-z0-9._-]+)+)", re.ASCII)


def find_cache(store: str | None) -> Cache:
    """Return the cache of a setting `store`. Raises UsageError if there is no workflow for it."""
    if store in (None, DEFAULT_STORE):
        return ACTIONS
    found = _GHCR.fullmatch(store)
    if found is None:
        raise UsageError(
            f"there is no workflow to write for {printable(store)}: only for GitHub's cache and "
            "registry://ghcr.io/OWNER/NAME, in lower case and without a tag; docs/action.md says "
            "how to maintain others"
        )
    return Cache(found[1])


def _example(cache: Cache) -> str:
    """Return the name of the workflow to copy."""
    return "maintain-registry.yml" if cache.repository else "maintain-cache.yml"


def make_workflow(cache: Cache, name: str) -> str:
    """Return the workflow that maintains a cache, for a repository of some name.

    It runs at a minute of its own: GitHub delays schedules at minutes that many use.
    """
    text = (_examples() / _example(cache)).read_text(encoding="utf-8")
    minute = zlib.crc32(name.encode("utf-8", "surrogateescape")) % 60
    text = _CRON.sub(f'cron: "{minute} 3 * * *"', text).replace(_USES, _pinned())
    return text.replace(_STORE, f"registry://{cache.repository}")


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


def write_workflow(root: Path, cache: Cache, *, overwrite: bool) -> str:
    """Write the workflow, and return what was done. Raises UsageError if another one is there."""
    text, place = make_workflow(cache, root.name), FOLDER / _example(cache)
    file = root / place
    if file.is_file() and file.read_bytes() == text.encode():
        return f"{place} is up to date"
    if file.exists() and not overwrite:
        raise UsageError(f"{place} exists, and differs: --overwrite replaces it")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text)
    return f"{place} was written: it runs once a day, and by hand"


def format_next_steps(root: Path, cache: Cache) -> Iterator[str]:
    """Format what remains to be done by hand."""
    workflows = read_workflows(root)
    exporting = [one for one in workflows if one.exports(cache)]
    lacking = [one for one in exporting if not one.imports(cache, _MERGE)]
    if exporting and not lacking:
        yield "1. All workflows that export a cache import the merge of all caches already."
    else:
        yield from _format_imports(cache, [use for one in lacking for use in one.exports(cache)])
    yield "2. Commit the workflow on the default branch: GitHub runs schedules only from there."
    if cache.repository:
        yield "   For its token to delete, this repository needs the role Admin for the package:"
        yield "   Package settings, Manage Actions access."
    yield "3. Run it once by hand with `Only report what would be done`, and read the job summary."
    yield f"   {SCHEDULES[:1].upper()}{SCHEDULES[1:]}."
    if not maintainer.COMMIT:
        yield (
            f"   This is not a release, so the workflow names the tag v{maintainer.__version__}. "
            "Pin it to the commit that you have reviewed."
        )
    if maintainer.REPOSITORY.startswith(f"{_NOBODY}/"):
        yield f"   {_NOBODY} stands for the account that this Action will be published by."
    if not cache.repository:
        yield from _format_registries(use for one in workflows for use in one.caches if use.exports)


def _format_registries(exports: Iterable[CacheUse]) -> Iterator[str]:
    """Format which exports go to a registry, for which there is another workflow."""
    for use in exports:
        store = f"registry://{use.repository}"
        if use.kind == "registry" and _GHCR.fullmatch(store):
            yield f"{printable(use.file)}:{use.line} exports to a registry. For its workflow, use"
            yield f"   maintainer init --store {store}"


def _format_imports(cache: Cache, exports: list[CacheUse]) -> Iterator[str]:
    """Format the line that these exports lack, and where it belongs."""
    yield "1. Let builds import the merge of all caches, below what they import already:"
    yield ""
    yield "     cache-from: |"
    own = cache.name(exports[0]) if exports else "TAG" if cache.repository else ""
    yield f"       {printable(cache.importing(own))}"
    yield f"       {cache.importing(_MERGE)}"
    yield ""
    if exports:
        places = ", ".join(f"{printable(use.file)}:{use.line}" for use in exports)
        yield f"   The last line is the new one. It belongs next to what exports a cache: {places}"
    else:
        at = f",ref={cache.repository}:…" if cache.repository else ""
        yield f"   No workflow here exports a cache with `cache-to: type={cache.kind}{at}` yet."
