"""What the workflows of a repository say about caches of builds.

They are read line by line, because options of `docker buildx` hide in scripts too.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

SCHEDULES = "in public repositories, GitHub stops schedules 60 days after the last commit"
_MAX_SIZE = 1024 * 1024
_PART = r"(?:\$\{\{.*?\}\}|[^\s\"'\]])"
_BEFORE = r"(?:[\w-]+=[^\s\"'\],]*,)*?"
_VALUE = rf"{_BEFORE}type={_PART}+"
_KEY = re.compile(r"^(?P<indent>\s*(?:-\s+)?)cache[-_](?P<way>to|from)\s*:(?P<rest>.*)$")
_OPTION = re.compile(rf"cache-(to|from)[=\s]+[\"']?({_VALUE})")
_COMMENT = re.compile(r"(^|\s)#.*")
_STORE = re.compile(r"^\s+store:\s*[\"']?(?!(?:github|configured)\b)[\w$]")
_STEP = re.compile(r"^\s*-\s")
_USES = re.compile(
    r"^\s*(?:-\s+)?uses:\s*[\"']?[\w.-]+/maintainer(?:/[\w./-]*)?@(\S+?)[\"']?(?:\s|$)"
)


class CacheUse(msgspec.Struct, frozen=True):
    """A cache that a workflow exports to or imports from."""

    file: str
    line: int
    exports: bool
    kind: str
    """`gha`, `local`, `registry` and so on."""
    attributes: Mapping[str, str]
    """Without the type: `mode`, `scope` and so on."""

    @property
    def scope(self) -> str:
        """The scope of an Actions cache."""
        return self.attributes.get("scope", "buildkit")

    @property
    def repository(self) -> str:
        """The repository of a registry, without its tag."""
        return self.attributes.get("ref", "").partition(":")[0]


class Cache(msgspec.Struct, frozen=True):
    """A cache that a repository's builds may use."""

    repository: str = ""
    """Where it is, such as `ghcr.io/octo/app-cache`; empty for GitHub's Actions cache."""

    @property
    def kind(self) -> str:
        """The `type` by which builds export to it."""
        return "registry" if self.repository else "gha"

    def has(self, use: CacheUse) -> bool:
        """Whether this is the cache that a workflow names."""
        return use.kind == self.kind and self.repository in ("", use.repository)

    def name(self, use: CacheUse) -> str:
        """Return the tag or scope that a workflow names; empty if it names none."""
        if self.repository:
            return use.attributes["ref"].partition(":")[2]
        return use.attributes.get("scope", "")

    def importing(self, name: str) -> str:
        """Return the line by which a build imports a tag or scope."""
        if self.repository:
            return f"type={self.kind},ref={self.repository}" + (f":{name}" if name else "")
        return f"type={self.kind}" + (f",scope={name}" if name else "")


ACTIONS = Cache()


class Workflow(msgspec.Struct, frozen=True):
    """What one workflow says."""

    file: str
    caches: tuple[CacheUse, ...]
    maintainer: str | None
    """The version of the Action of this project that maintains GitHub's cache in it."""

    def exports(self, cache: Cache) -> tuple[CacheUse, ...]:
        """Return its exports to a cache."""
        return tuple(use for use in self.caches if use.exports and cache.has(use))

    def imports(self, cache: Cache, name: str) -> bool:
        """Whether it imports a tag or scope of a cache."""
        uses = (use for use in self.caches if not use.exports and cache.has(use))
        return any((cache.name(use) or use.scope) == name for use in uses)


def find_root(folder: Path) -> Path | None:
    """Return the root of the git repository that contains a folder."""
    here = folder.absolute()
    return next((one for one in (here, *here.parents) if (one / ".git").exists()), None)


def read_workflows(root: Path) -> tuple[Workflow, ...]:
    """Read the workflows of a repository; files that cannot be read as text are skipped."""
    folder = root / ".github" / "workflows"
    files = sorted(one for one in folder.glob("*.y*ml") if one.suffix in (".yml", ".yaml"))
    return tuple(read_workflow(one.name, _read(one)) for one in files)


def _read(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            return opened.read(_MAX_SIZE)
    except OSError:
        return ""


def read_workflow(file: str, text: str) -> Workflow:
    """Read the caches that a workflow names."""
    lines = text.splitlines()
    return Workflow(file, tuple(_caches(file, lines)), next(_versions(lines), None))


def _versions(lines: list[str]) -> Iterator[str]:
    """Return the versions of our Action in the steps that maintain GitHub's cache."""
    version, has_store, depth = None, False, -1
    for line in [*filter(str.strip, lines), "end:"]:
        indent = len(line) - len(line.lstrip())
        if indent <= depth:
            if version and not has_store:
                yield version
            version, has_store, depth = None, False, -1
        used = _USES.match(line)
        if depth < 0 and _STEP.match(line):
            depth = indent
        elif depth < 0 and used:
            depth = indent - 1  # A job that calls a workflow, and ends where less is indented.
        version = used[1] if used else version
        has_store = has_store or _STORE.match(line) is not None


def _caches(file: str, lines: list[str]) -> Iterator[CacheUse]:
    way, depth = "", -1
    for number, commented in enumerate(lines, 1):
        line = _COMMENT.sub("", commented)
        text = line.strip()
        if not text:
            continue
        indent = len(line) - len(line.lstrip())
        if key := _KEY.match(line):
            way, depth = key["way"], len(key["indent"])
            found = [(way, value) for value in re.findall(_VALUE, key["rest"])]
        elif way and (indent > depth or (indent == depth and text.startswith("- "))):
            found = [(way, value) for value in re.findall(_VALUE, text)]
        else:
            way = ""
            found = _OPTION.findall(line)
        yield from (_use(file, number, *one) for one in found)


def _use(file: str, line: int, way: str, value: str) -> CacheUse:
    fields = [field.partition("=") for field in value.split(",")]
    given = {key: text for key, _, text in fields}
    return CacheUse(file, line, way == "to", given.pop("type"), given)
