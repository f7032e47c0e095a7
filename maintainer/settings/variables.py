"""Variables of the environment: GitHub's own, and those that settings name, which hold tokens."""

VARIABLES = {
    "GITHUB_REPOSITORY": True,
    "GITHUB_API_URL": False,
    "GITHUB_TOKEN": False,
    "ACTIONS_RUNTIME_TOKEN": False,
    "ACTIONS_RESULTS_URL": False,
    "ACTIONS_CACHE_URL": False,
    "ACTIONS_CACHE_SERVICE_V2": False,
}
"""GitHub's own variables, and whether the value of each may be shown: URLs may contain secrets."""
DEFAULT_VARIABLE = "GITHUB_TOKEN"
"""The variable that holds a token, unless `token_env` names another one."""
UNSET_BY_DEFAULT = f"{DEFAULT_VARIABLE} is not set: set it, or name another variable by token_env"
_LONGEST_NAME = 32
"""Characters of a variable's name; tokens have more."""


def shown_variable(variable: str, key: str) -> str:
    """Return a text that refers to a variable: its name, unless that may be the token itself."""
    return variable if _is_name(variable) else f"the variable of {key}"


def _is_name(variable: str) -> bool:
    """Whether a text looks like the name of a variable: some people put the token there."""
    return variable.isupper() and len(variable) <= _LONGEST_NAME


def format_unset(target: str, key: str, variable: str) -> str:
    """Return the error for a variable that is not set."""
    if variable == DEFAULT_VARIABLE:
        return f"target {target}: {UNSET_BY_DEFAULT}"
    named = f"{variable}, which" if _is_name(variable) else "a variable that"
    return f"target {target}: {key} names {named} is not set"
