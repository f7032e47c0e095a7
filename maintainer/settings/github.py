"""What a workflow's environment says: where GitHub's cache is, tokens, and the step's files."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from maintainer.errors import UsageError
from maintainer.settings.app import AppSettings
from maintainer.settings.mistakes import explained
from maintainer.settings.targets import DiscoverSettings, TargetSettings
from maintainer.settings.variables import (
    DEFAULT_VARIABLE,
    UNSET_BY_DEFAULT,
    format_unset,
    shown_variable,
)

DEFAULT_API_URL = "https://api.github.com"


class GitHubSettings(BaseModel):
    """A workflow's own environment: the location of the cache, and the permissions of a run."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    results_url: str | None = Field(default=None, alias="ACTIONS_RESULTS_URL")
    cache_url: str | None = Field(default=None, alias="ACTIONS_CACHE_URL")
    runtime_token: SecretStr | None = Field(default=None, alias="ACTIONS_RUNTIME_TOKEN")
    cache_service_v2: bool = Field(default=False, alias="ACTIONS_CACHE_SERVICE_V2")
    token: SecretStr | None = Field(default=None, alias="GITHUB_TOKEN")
    repository: str | None = Field(
        default=None, alias="GITHUB_REPOSITORY", pattern=r"^[\w.-]+/[\w.-]+$"
    )
    api_url: str = Field(default=DEFAULT_API_URL, alias="GITHUB_API_URL")
    app: AppSettings | None = Field(default=None, init=False)
    """What is used instead of `token`."""
    token_env: str = Field(default=DEFAULT_VARIABLE, init=False)
    """The variable that holds `token`, for messages."""
    runtime_token_env: str = Field(default="ACTIONS_RUNTIME_TOKEN", init=False)
    """The variable that holds `runtime_token`."""

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read GitHub's own variables; an empty one counts as not set.

        Raises UsageError, in one line that names the variable.
        """
        try:
            return cls.model_validate({k: v for k, v in environment.items() if v})
        except ValidationError as error:
            raise explained(error, None) from None

    @classmethod
    def of_target(
        cls,
        target: TargetSettings,
        environment: Mapping[str, str] = os.environ,
        *,
        needs_tokens: bool = True,
    ) -> Self:
        """Return the location of a target's cache, with the tokens from its variables.

        The environment's own runtime token is valid only for the environment's own repository.
        Raises UsageError if there is no token, unless only the location is needed.
        """
        token = "" if target.app else environment.get(target.token_env, "")
        runtime: dict[str, str] = {}
        if target.runtime_token_env:
            runtime = {
                "ACTIONS_RUNTIME_TOKEN": environment.get(target.runtime_token_env, ""),
                "ACTIONS_RESULTS_URL": target.results_url or "",
                "ACTIONS_CACHE_URL": target.cache_url or "",
                "ACTIONS_CACHE_SERVICE_V2": "true" if target.results_url else "",
            }
            if needs_tokens and not runtime["ACTIONS_RUNTIME_TOKEN"]:
                raise UsageError(
                    format_unset(target.name, "runtime_token_env", target.runtime_token_env)
                )
        elif _is_own(target, environment):
            runtime = {k: v for k, v in environment.items() if k.startswith("ACTIONS_")}
        wants_token = "token_env" in target.model_fields_set or not target.runtime_token_env
        if needs_tokens and wants_token and not token and not target.app:
            raise UsageError(format_unset(target.name, "token_env", target.token_env))
        api_url = target.api_url or environment.get("GITHUB_API_URL", "")
        place = {"GITHUB_REPOSITORY": target.repository or "", "GITHUB_API_URL": api_url}
        names: dict[str, object] = {
            "token_env": shown_variable(target.token_env, "token_env"),
            "app": target.app,
        }
        if target.runtime_token_env:
            names["runtime_token_env"] = shown_variable(
                target.runtime_token_env, "runtime_token_env"
            )
        settings = cls.read(runtime | place | {"GITHUB_TOKEN": token})
        return settings.model_copy(update=names)


class StepSettings(BaseModel):
    """The runner's variables of the current step: where it may write outputs."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    summary: Path | None = Field(default=None, alias="GITHUB_STEP_SUMMARY")
    output: Path | None = Field(default=None, alias="GITHUB_OUTPUT")
    temporary: Path | None = Field(default=None, alias="RUNNER_TEMP")

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the runner's own variables; an empty one counts as not set."""
        return cls.model_validate({k: v for k, v in environment.items() if v})


def target_of(repository: str) -> TargetSettings:
    """Return the target for a repository that the command line names. Raises UsageError."""
    try:
        target = TargetSettings(name="repository", repository=repository)
    except ValidationError:
        raise UsageError("--repository is not a valid repository; use OWNER/NAME") from None
    if not os.environ.get(target.token_env):
        raise UsageError(f"{target.token_env} is not set: `gh auth token` prints one")
    return target


def _is_own(target: TargetSettings, environment: Mapping[str, str]) -> bool:
    """Whether a target is the environment's own repository, on the environment's own host."""
    api_url = environment.get("GITHUB_API_URL") or DEFAULT_API_URL
    repository = environment.get("GITHUB_REPOSITORY", "")
    cache = (target.repository or "", target.api_url or api_url)
    return tuple(map(_folded, cache)) == tuple(map(_folded, (repository, api_url)))


def _folded(text: str) -> str:
    return text.lower().rstrip("/")


def api_url_of(table: TargetSettings | DiscoverSettings) -> str:
    """Return the URL of the REST API for the caches of a table."""
    return table.api_url or os.environ.get("GITHUB_API_URL") or DEFAULT_API_URL


def token_of(table: DiscoverSettings) -> str:
    """Return the token with which a place is searched. Raises UsageError if it is not set."""
    if token := os.environ.get(table.token_env, ""):
        return token
    if table.token_env == DEFAULT_VARIABLE:
        raise UsageError(UNSET_BY_DEFAULT)
    variable = shown_variable(table.token_env, "token_env")
    raise UsageError(f"token_env names {variable}, which is not set")
