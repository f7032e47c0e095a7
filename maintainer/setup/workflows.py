"""What the workflows of a repository say about caches of builds.

They are read line by line, because options of `docker buildx` hide in scripts too.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

SCHEDULES = "in public repositories, GitHub stops schedules 60 days after the last commit"
_MAX_SIZE = 1024 * 1024
_VALUE = r"type=(?:\$\{\{.*?\}\}|[^\s\"'\]])+"
_KEY = re.compile(r"^(?P<indent>\s*(?:-\s+)?)cache[-_](?P<way>to|from)\s*:(?P<rest>.*)$")
_OPTION = re.compile(rf"cache-(to|from)[=\s]+[\"']?({_VALUE})")
_COMMENT = re.compile(r"(^|\s)#.*")
_STORE = re.compile(r"^\s+store:\s*[\"']?(?!(?:github|configured)\b)[\w$]")
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


class Workflow(msgspec.Struct, frozen=True):
    """What one workflow says."""

    file: str
    caches: tuple[CacheUse, ...]
    maintainer: str | None
    """The version of the Action of this project that maintains GitHub's cache in it."""

    @property
    def exports(self) -> tuple[CacheUse, ...]:
        """The exports to the Actions cache."""
        return tuple(use for use in self.caches if use.kind == "gha" and use.exports)

    def imports(self, scope: str) -> bool:
        """Whether it imports a scope of the Actions cache."""
        uses = (use for use in self.caches if use.kind == "gha" and not use.exports)
        return any(use.scope == scope for use in uses)


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
    found = [match[1] for line in lines if (match := _USES.match(line))]
    others = sum(1 for line in lines if found and _STORE.match(line))
    ours = found[0] if len(found) > others else None
    return Workflow(file, tuple(_caches(file, lines)), ours)


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
