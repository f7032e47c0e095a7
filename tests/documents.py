"""The generated parts of the documentation: `make docs` writes them, and a test compares them."""

import json
import re
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from maintainer import REPOSITORY
from maintainer.graph.database import Database
from maintainer.settings import (
    DiscoverSettings,
    RoomSettings,
    RuleSettings,
    ServeSettings,
    Settings,
    TargetSettings,
)
from maintainer.setup.effective import spell

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
DOCUMENTS = [README, *sorted(DOCS.glob("*.md"))]
ACTION = ROOT / "action.yml"
EXAMPLES = ROOT / "examples"
NAMING_THE_OWNER = [
    *DOCUMENTS,
    *sorted(EXAMPLES.glob("*.yml")),
    ROOT / "pyproject.toml",
    ROOT / ".github" / "CODEOWNERS",
]
"""Generated documents, and files to copy: all that says where this project is."""
QUERIES = ROOT / "config" / "queries.sql"
QUERIES_ON_POSTGRESQL = QUERIES.with_stem("queries-postgresql")

_OWNER = re.compile(r"(?<=uses: )[\w.-]+/maintainer(?=[@/])|(?<=github\.com/)[\w.-]+/maintainer\b")
_CODE_OWNER = re.compile(r"(?<=^\* @)[\w-]+", re.MULTILINE)
_PART = re.compile(r"^<!-- ([\w ]+): made by `make docs` -->$", re.MULTILINE)
_ENTRY = re.compile(r"^  ([\w-]+):\n    description: (.+)\n(?:    default: (.+)\n)?", re.MULTILINE)
VIEWS = {
    "actions": "What a run wrote, deleted or kept, and why; at most 5,000 kept entries.",
    "blob_uses": "Which generation of which index references which blob.",
    "blobs": "Every blob that is stored or that an index references, and why it is kept or not.",
    "entries": "Every entry of every kind and tool, stored or remembered, and why it is kept.",
    "generations": "Every generation of every index, stored or remembered.",
    "run_states": "What was stored when each run ended, by state.",
    "runs": "Every run and its counts.",
    "scopes": "Every scope in every ref: its generations, and the newest one that is stored.",
}


def generated(text: str) -> str:
    """Return a document with its generated parts up to date."""
    for name in _PART.findall(text):
        begin, end = f"<!-- {name}: made by `make docs` -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        assert found_end, f"there is no {end}"
        text = f"{before}{begin}\n{PARTS[name]()}\n{end}{after}"
    text = _OWNER.sub(REPOSITORY, text)
    return _CODE_OWNER.sub(REPOSITORY.partition("/")[0], text)


def _settings() -> str:
    tables = [
        _fields(Settings, "", skip={"room", "serve", "targets", "discover"}),
        "The table `[room]`: [what leaves a full cache](policies.md).\n",
        _fields(RoomSettings, "room.", skip={"rules"}),
        "Each table `[[room.rules]]`, for entries of another tool:\n",
        _fields(RuleSettings, "room.rules."),
        "The table `[serve]`, for the service:\n",
        _fields(ServeSettings, "serve."),
        "Each table `[[targets]]`, a cache that the service maintains:\n",
        _fields(TargetSettings, "targets."),
        "Each table `[[discover]]`, a place where the service finds [more caches](discovery.md):\n",
        _fields(DiscoverSettings, "discover."),
    ]
    return "\n".join(tables)


def _fields(model: type[BaseModel], prefix: str, skip: Collection[str] = ()) -> str:
    rows = [
        f"| `{prefix}{name}` | {_default(field)} | {field.description} |"
        for name, field in model.model_fields.items()
        if name not in skip
    ]
    return "\n".join(["| key | default | what it is |", "| --- | --- | --- |", *rows, ""])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be set"
    return _format_value(field.default)


def _format_value(value: Any) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return ", ".join(map(_format_value, value))
    if value == "":
        return "empty"
    spelled = spell(value)
    return f"`{spelled if isinstance(spelled, str) else json.dumps(spelled)}`"


def _views() -> str:
    rows = [f"| `{name}` | {VIEWS[name]} | {', '.join(columns)} |" for name, columns in views()]
    return "\n".join(["| view | one row for | columns |", "| --- | --- | --- |", *rows, ""])


def views() -> Iterator[tuple[str, list[str]]]:
    """Return the views of a new database, and their columns."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/graph.db")
        database.upgrade()
        database.close()
        with closing(sqlite3.connect(f"{folder}/graph.db")) as connection:
            names = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'view' ORDER BY name"
            ).fetchall()
            for (name,) in names:
                rows = connection.execute("SELECT name FROM pragma_table_info(?)", (name,))
                yield name, [column for (column,) in rows]


def _queries() -> str:
    return "\n".join(f"{question}\n\n```sql\n{query}\n```\n" for question, query in queries())


def queries() -> Iterator[tuple[str, str]]:
    """Return the published queries, each with its question."""
    yield from read_queries(QUERIES)


_ON_POSTGRESQL = (
    ("group_concat(DISTINCT blob_uses.scope)", "string_agg(DISTINCT blob_uses.scope, ',')"),
    (
        "(SELECT datetime(max(started_at), '-7 days') FROM runs)",
        """(
      SELECT to_char(max(started_at)::timestamp - interval '7 days', 'YYYY-MM-DD HH24:MI:SS')
      FROM runs)""",
    ),
)
_HEAD_ON_POSTGRESQL = """\
-- The seven queries of queries.sql, for a database on a PostgreSQL server:
--
--     psql -e -d "$URL" -f config/queries-postgresql.sql     # postgresql://USER@HOST/NAME
"""


def queries_on_postgresql() -> str:
    """Return the queries as PostgreSQL spells them: two functions have other names there."""
    text = QUERIES.read_text()
    for ours, theirs in _ON_POSTGRESQL:
        assert ours in text, ours
        text = text.replace(ours, theirs)
    head, _, rest = text.partition("queries.sql\n--\n-- The views")
    assert head.endswith("config/"), "its first lines say how to run it"
    return f"{_HEAD_ON_POSTGRESQL}--\n-- The views{rest}"


def read_queries(file: Path) -> Iterator[tuple[str, str]]:
    """Return the queries of a file, each with its question."""
    for piece in re.split(r"(?m)^-- \d\. ", file.read_text())[1:]:
        question, query = piece.split("\n", maxsplit=1)
        yield question, query.strip()


def _example(name: str) -> str:
    return f"```yaml\n{(EXAMPLES / name).read_text()}```\n"


def _inputs() -> str:
    rows = [
        f"| `{name}` | {f'`{default}`' if default else 'as in the settings'} | {description} |"
        for name, description, default in action_part("inputs")
    ]
    return "\n".join(["| input | default | what it is |", "| --- | --- | --- |", *rows, ""])


def _outputs() -> str:
    rows = [f"| `{name}` | {description} |" for name, description, _ in action_part("outputs")]
    return "\n".join(["| output | what it is |", "| --- | --- |", *rows, ""])


def action_part(section: str) -> list[tuple[str, str, str]]:
    """Return the inputs or outputs of the Action: names, descriptions and defaults."""
    after = ACTION.read_text().partition(f"\n{section}:\n")[2]
    part = re.split(r"^\S", after, maxsplit=1, flags=re.MULTILINE)[0]
    return [(name, text, default.strip('"')) for name, text, default in _ENTRY.findall(part)]


PARTS: Mapping[str, Callable[[], str]] = {
    "settings": _settings,
    "views": _views,
    "queries": _queries,
    "workflow": lambda: _example("maintain-cache.yml"),
    "build workflow": lambda: _example("build-images.yml"),
    "registry workflow": lambda: _example("maintain-registry.yml"),
    "inputs": _inputs,
    "outputs": _outputs,
}
"""The parts that follow from code, settings and workflows, by the names that documents use."""


if __name__ == "__main__":
    for document in NAMING_THE_OWNER:
        document.write_text(generated(document.read_text()))
    QUERIES_ON_POSTGRESQL.write_text(queries_on_postgresql())
