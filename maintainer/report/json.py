"""The report as one JSON document, and its schema."""

import json
from pathlib import Path

import msgspec

from maintainer.report.model import Report

SCHEMA = Path(__file__).with_name("schema.json")
"""The published schema. A test keeps it current: `python -m maintainer.report.json` writes it."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def to_json(value: object) -> str:
    """Return the JSON of a report, or of a list of runs.

    All non-ASCII characters are escaped: keys and refs may contain terminal commands.
    """
    return json.dumps(msgspec.to_builtins(value), indent=2, sort_keys=False)


def make_schema() -> str:
    """Return the JSON Schema of a report, as the types and docstrings say."""
    from maintainer.report.described import describe_fields  # noqa: PLC0415 it takes long to import

    schema = {"$schema": _DIALECT, "title": "A report of maintainer"} | msgspec.json.schema(Report)
    describe_fields(schema, Report)
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(make_schema(), encoding="utf-8")
