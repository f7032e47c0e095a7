"""What is wrong with a value, in our words: a validator's own are for programmers.

It takes what Pydantic finds as plain values, so it need not import Pydantic.
"""

from collections.abc import Mapping
from typing import Any

_WORDS = {
    "bool": "must be true or false",
    "byte_size": "is not a valid size; use 10GB or 256MiB",
    "dict": "must be a table",
    "float": "is not a number",
    "int": "is not a whole number",
    "list": "must be a list",
    "model": "must be a table",
    "string": "must be text",
    "string_too_long": "is too long",
    "string_too_short": "must not be empty",
    "too_long": "is too long",
    "too_short": "is too short",
    "tuple": "must be a list",
}
"""By the beginning of the kind of problem; the last one that fits."""
_LIMITS = {
    "greater_than_equal": ("ge", "must be at least"),
    "greater_than": ("gt", "must be more than"),
    "less_than_equal": ("le", "must be at most"),
    "less_than": ("lt", "must be less than"),
}
_FORMS = {
    "GITHUB_REPOSITORY": "use OWNER/NAME",
    "app_key_env": "use the name of a variable",
    "api_url": "use https://HOST/PATH, without a user or a query",
    "cache_url": "use https://HOST/PATH, without a user or a query",
    "database_key": "use at most 256 characters, without control characters",
    "merged_scope": "use at most 256 characters, without control characters",
    "merged_tag": "use at most 256 characters, without control characters",
    "name": "use up to 128 letters, digits, dots, dashes and underscores",
    "organization": "use the name of an organization",
    "repository": "use OWNER/NAME",
    "results_url": "use https://HOST/PATH, without a user or a query",
    "runtime_token_env": "use the name of a variable",
    "token_env": "use the name of a variable",
}
"""The form of texts that a pattern checks, by key."""


def explain(problem: Mapping[str, Any]) -> str:
    """Return what is wrong with a value, without the value: it may be a secret.

    `problem` has the fields that Pydantic gives an error: `type`, `loc`, `ctx`, `msg`.
    """
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "value_error":
        text: str = problem["msg"].removeprefix("Value error, ").replace("\n", " ").rstrip(".")
        return f"{text[:1].lower()}{text[1:]}"
    if kind in ("literal_error", "enum"):
        return f"must be {context['expected']}"
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        return f"{words} {context[name]}"
    if kind == "string_pattern_mismatch":
        form = _FORMS.get(str(problem["loc"][-1]) if problem["loc"] else "")
        return f"is not valid; {form}" if form else "is not valid"
    known = [words for start, words in _WORDS.items() if kind.startswith(start)]
    return known[-1] if known else "is not valid"
