"""The report as one JSON document."""

import json

import msgspec


def to_json(value: object) -> str:
    """Give the JSON of a report, or of a list of runs.

    Everything outside of ASCII is escaped: keys and refs may hold what terminals obey.
    """
    return json.dumps(msgspec.to_builtins(value), indent=2, sort_keys=False)
