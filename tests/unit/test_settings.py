"""Settings: where they come from, which of them wins, and what is wrong with them in one line."""

import os
import re
import tomllib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import maintainer
from maintainer.errors import UsageError
from maintainer.model.limits import KeepFree, ToolRule
from maintainer.settings import (
    DiscoverSettings,
    GitHubSettings,
    RoomSettings,
    RuleSettings,
    ServeSettings,
    Settings,
    TargetSettings,
    check_cron,
    load_settings,
    parse_duration,
    parse_keep_free,
)

EXAMPLE = Path(maintainer.__file__).parents[1] / "config" / "maintainer.toml"
SECRET = "ghs_0123456789abcdefSECRET"


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take out what the machine's own environment sets."""
    for variable in list(os.environ):
        if variable.upper().startswith("MAINTAINER_"):
            monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """Return a function that writes a configuration file."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "settings.toml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


Write = Callable[[str | bytes], Path]


def _problem(config: Path | None = None, **overrides: Any) -> str:
    """Return the one line that says what is wrong."""
    with pytest.raises(UsageError) as caught:
        load_settings(config, overrides)
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _problem_in(config: Path) -> str:
    """Return the one line that says what is wrong in a file, without the name of the file."""
    problem, origin = _problem(config), f" (from {config})"
    assert origin in problem
    return problem.replace(origin, "")


# Which source wins.


def test_who_sets_nothing_gets_the_defaults() -> None:
    settings = load_settings(None, {})

    assert settings.model_dump() == Settings.defaults().model_dump()
    assert settings.database == "sqlite:///maintainer.db"
    assert settings.grace == timedelta(hours=24)
    assert settings.scopes == ("buildkit",)
    assert settings.generation_gap == 20
    assert settings.targets == ()


def test_a_file_overrules_defaults_the_environment_a_file_and_the_command_line_all(
    file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file('grace = "1h"\ngeneration_gap = 1\nreservation_wait = "1s"\n')
    monkeypatch.setenv("MAINTAINER_GENERATION_GAP", "2")
    monkeypatch.setenv("MAINTAINER_RESERVATION_WAIT", "2s")

    settings = load_settings(path, {"reservation_wait": "3s"})

    assert settings.database == "sqlite:///maintainer.db"
    assert settings.grace == timedelta(hours=1)
    assert settings.generation_gap == 2
    assert settings.reservation_wait == timedelta(seconds=3)


def test_a_list_replaces_a_list_of_a_weaker_source(
    file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file('scopes = ["api", "web"]')
    assert load_settings(path, {}).scopes == ("api", "web")

    monkeypatch.setenv("MAINTAINER_SCOPES", "tools")

    assert load_settings(path, {}).scopes == ("tools",)
    assert load_settings(path, {"scopes": ["site"]}).scopes == ("site",)


def test_the_environment_may_name_the_file_and_the_command_line_another(
    file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file("generation_gap = 1")
    other = tmp_path / "other.toml"
    other.write_text("generation_gap = 2")
    monkeypatch.setenv("MAINTAINER_CONFIG", str(path))

    assert load_settings(None, {}).generation_gap == 1
    assert load_settings(other, {}).generation_gap == 2


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINTAINER_CONFIG", "")
    monkeypatch.setenv("MAINTAINER_GRACE", "")

    assert load_settings(None, {}).grace == timedelta(hours=24)


def test_no_other_file_is_read_than_the_one_that_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MAINTAINER_GRACE=1h\n")
    (tmp_path / "maintainer.toml").write_text('grace = "1h"')

    assert load_settings(None, {}).grace == timedelta(hours=24)


def test_settings_cannot_be_changed_afterwards() -> None:
    settings = load_settings(None, {})

    with pytest.raises(ValueError, match="frozen"):
        settings.generation_gap = 3


# Durations and lists.


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0s", timedelta(0)),
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("1d12h", timedelta(days=1, hours=12)),
        ("1h 30m", timedelta(hours=1, minutes=30)),
        ("000", timedelta(0)),
        ("2w", timedelta(weeks=2)),
        (0, timedelta(0)),
        (" 1 h ", timedelta(hours=1)),
        (timedelta(minutes=5), timedelta(minutes=5)),
    ],
)
def test_durations_are_numbers_and_their_units(text: object, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h",
        "1 month",
        "1h1h",
        "1h30",
        "-1h",
        "+1h",
        "1.5h",
        1.5,
        "1e3s",
        "\u0661h",
        "1H",
        7,
        "1h\n1",
        None,
    ],
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(
        ValueError, match=r"^is not a valid duration; use 90s, 30m, 24h, 7d, 2w or 1d12h$"
    ):
        parse_duration(text)


def test_a_duration_that_no_calendar_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="is too long"):
        parse_duration("999999999w")


@pytest.mark.parametrize(
    ("text", "scopes"),
    [
        ("web", ("web",)),
        ("api, web,", ("api", "web")),
        ('["one, two", "three"]', ("one, two", "three")),
        (' ["a"]', ("a",)),
    ],
)
def test_scopes_in_a_variable_are_separated_by_commas_or_json(
    text: str, scopes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAINTAINER_SCOPES", text)

    assert load_settings(None, {}).scopes == scopes


@pytest.mark.parametrize(
    "text", ["* * * * *", "7 */2 1,15 * *", "5/15 0-6 * jan,Dec *", "0 0 * * 7", "0 0 29 2 *"]
)
def test_a_cron_expression_stays_what_it_is(text: str) -> None:
    assert check_cron(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("@daily", "five fields"),
        ("0 30 3 * * *", "five fields"),
        ("60 * * * *", "bad minute"),
        ("* 24 * * *", "bad hour"),
        ("* * 0 * *", "bad day-of-month"),
        ("* * * 13 *", "bad month"),
        ("* * * * noday", "bad day-of-week"),
        ("*/0 * * * *", "bad minute"),
        (", * * * *", "bad minute"),
        ("\N{ARABIC-INDIC DIGIT THREE} * * * *", "bad minute"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("0 0 */20 * 1L", "names a day that never comes"),
    ],
)
def test_what_is_no_cron_expression_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_cron(text)


# What leaves a full cache.


@pytest.mark.parametrize(
    ("text", "amount", "of_ten_gigabytes"),
    [
        ("15%", KeepFree(share=0.15), 1_500_000_000),
        ("2.5 %", KeepFree(share=0.025), 250_000_000),
        ("1.5GB", KeepFree(size=1_500_000_000), 1_500_000_000),
        ("512MiB", KeepFree(size=512 * 1024**2), 512 * 1024**2),
        ("0%", KeepFree(), 0),
        (KeepFree(size=1), KeepFree(size=1), 1),
    ],
)
def test_what_stays_free_is_a_share_or_a_size(
    text: object, amount: KeepFree, of_ten_gigabytes: int
) -> None:
    assert parse_keep_free(text) == amount
    assert amount.of(10 * 10**9) == of_ten_gigabytes


@pytest.mark.parametrize("text", ["", " ", None])
def test_nothing_stays_free_by_default(text: str | None) -> None:
    assert parse_keep_free(text) is None
    assert RoomSettings().keep_free is None


@pytest.mark.parametrize("text", ["15", 16, 0.15, True, "100%", "-1%", "much", "1.5 XB", "%", "GB"])
def test_a_number_without_a_unit_is_no_amount(text: object) -> None:
    with pytest.raises(ValueError, match=r"^is not a valid amount; use 15% or 1.5GB$"):
        parse_keep_free(text)


def test_rules_of_other_tools_are_values(file: Write) -> None:
    path = file(
        "[room]\nclosed_refs = true\n"
        '[[room.rules]]\nprefix = "setup-node-"\nkeep_newest = 2\n'
        '[[room.rules]]\nprefix = "v0-rust-"\nunused_for = "60d"\nmax_bytes = "1GB"\n'
    )

    room = load_settings(path, {}).room

    assert room.closed_refs
    assert [rule.value for rule in room.rules] == [
        ToolRule("setup-node-", keep_newest=2),
        ToolRule("v0-rust-", unused_for=timedelta(days=60), max_bytes=10**9),
    ]


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ("keep_newest = 2", "prefix in [[room.rules]] number 1 is missing"),
        (
            'prefix = ""\nkeep_newest = 2',
            "prefix in [[room.rules]] number 1 must not be empty",
        ),
        (
            'prefix = "a"',
            "[[room.rules]] number 1: keep_newest, unused_for or max_bytes must be set",
        ),
        (
            'prefix = "a"\nkeep_newest = 0',
            "keep_newest in [[room.rules]] number 1 must be at least 1",
        ),
        (
            'prefix = "a"\nunused_for = "soon"',
            "unused_for in [[room.rules]] number 1 is not a valid duration",
        ),
        (
            'prefix = "a"\nmax_bytes = 0',
            "max_bytes in [[room.rules]] number 1 must be more than 0",
        ),
        (
            'prefix = "buildkit-blob-1-sha256"\nkeep_newest = 1',
            "prefix in [[room.rules]] number 1 is the beginning of BuildKit's keys; rules are",
        ),
        (
            'prefix = "a"\nkeep_newest = 1\n[[room.rules]]\nprefix = "a"\nkeep_newest = 2',
            "room.rules: there are 2 with the prefix a",
        ),
    ],
)
def test_what_is_wrong_with_a_rule_is_named(file: Write, rules: str, problem: str) -> None:
    assert _problem_in(file(f"[[room.rules]]\n{rules}")).startswith(f"setting {problem}")


def test_an_unknown_key_of_a_rule_is_named(file: Write) -> None:
    path = file('[[room.rules]]\nprefix = "a"\nkeep = 1')

    assert _problem(path) == f"{path}: unknown key 'room.rules.0.keep'"


# What is wrong, in one line that names it.


def test_an_unknown_key_of_the_file_is_named_with_the_one_that_was_meant(file: Write) -> None:
    path = file('gracee = "1h"')

    assert _problem(path) == f"{path}: unknown key 'gracee': did you mean grace?"


@pytest.mark.parametrize(
    "name", ["cache.example:9309", "http://cache.example", "*.example", "a/b", "[::1]", " ", ""]
)
def test_a_host_that_no_request_could_name_is_refused(file: Write, name: str) -> None:
    """A proxy would get 421 for ever."""
    path = file(f'[serve]\nhosts = ["cache.example", "{name}"]')

    assert _problem_in(path) == (
        f"setting serve.hosts: {name!r} is not a host name; write cache.example, without scheme "
        "and port"
    )


@pytest.mark.parametrize("name", ["cache.example", "Cache_1", "192.0.2.1", "2001:db8::1", "x."])
def test_a_host_is_a_name_or_an_address(file: Write, name: str) -> None:
    assert load_settings(file(f'[serve]\nhosts = ["{name}"]'), {}).serve.hosts == (name,)


def test_a_pattern_of_directories_with_nul_is_refused_in_one_line(file: Write) -> None:
    path = file('[[discover]]\nname = "d"\nstore = "local:/tmp/\\u0000x/*"')

    assert _problem_in(path) == "setting store in [[discover]] number 1 must not contain NUL"


def test_an_unknown_key_of_a_table_is_named(file: Write) -> None:
    path = file('[serve]\nlisten = "127.0.0.1:1"\nport = 1')

    assert _problem(path) == f"{path}: unknown key 'serve.port'"


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        ('[[rules]]\nprefix = "a"', "'rules': did you mean room.rules?"),
        ('room.unused_for = "5d"', "'room.unused_for': did you mean unused_for in [[room.rules]]?"),
        ('listen = "127.0.0.1:1"', "'listen': did you mean serve.listen?"),
        ('room.quota = "1GB"', "'room.quota': did you mean quota at the top, above all tables?"),
        ('[room]\nkeep_fre = "1GB"', "'room.keep_fre': did you mean keep_free?"),
        (
            '[[targets]]\nname = "a"\nstore = "local:a"\n[targets.room]\nkeep_fre = "1GB"',
            "'targets.0.room.keep_fre': did you mean keep_free?",
        ),
        (
            "no_sweep = true",
            "'no_sweep': it is an option of one run, `maintainer gc --no-sweep`",
        ),
        ('serve.cron = "0 3 * * *"', "'serve.cron': did you mean cron in [[targets]]?"),
    ],
)
def test_a_key_in_the_wrong_table_is_reported_with_the_right_one(
    file: Write, content: str, advice: str
) -> None:
    path = file(content)

    assert _problem(path) == f"{path}: unknown key {advice}"


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("grace", '"soon"', "is not a valid duration; use 90s, 30m, 24h, 7d, 2w or 1d12h"),
        ("grace", "1.5", "is not a valid duration"),
        ("grace", '"999999d"', "must be at most 3650 days"),
        (
            "database",
            '"mysql://user:SECRET@host/db"',
            "is not a valid SQLite file or PostgreSQL database; use",
        ),
        ("database", '"sqlite:///"', "is not a valid SQLite file"),
        ("database", '"sqlite:///:memory:"', "is not a valid SQLite file"),
        ("generation_gap", "0", "must be at least 1"),
        ("generation_gap", "10001", "must be at most 10000"),
        ("generation_gap", '"many SECRET"', "is not a whole number"),
        ("scopes", "1", "must be a list"),
        ("scopes", "[1]", "must be text"),
        ("scopes", "'[\"SECRET]'", "is not a valid JSON list"),
        ("quota", '"much"', "is not a valid size; use 10GB"),
        ("quota", "0", "must be more than 0"),
        ("quota", "true", "is not a valid size; use 10GB"),
        ("max_index_size", "true", "is not a valid size; use 10GB"),
        ("max_merge_size", "true", "is not a valid size; use 10GB"),
        ("max_merge_size", '"nonsense"', "is not a valid size; use 10GB"),
        ("max_merge_size", "0", "must be more than 0"),
        ("max_merge_size", "8", "has no unit; use 10GB"),
        ("quota", "10", "has no unit; use 10GB"),
        ("quota", '" 999999 "', "has no unit; use 10GB"),
        ("max_requests", "true", "is not a number"),
        ("rest_share", "true", "is not a number"),
        ("quota", '"99999EB"', "must be at most 1000000000000000000"),
        ("rest_share", "1.5", "must be at most 1"),
        ("max_requests", "0", "must be at least 1"),
        ("deadline", '"0s"', "must be more than 0 seconds"),
        ("log_format", '"xml"', "must be 'text' or 'json'"),
    ],
)
def test_a_bad_value_in_the_file_is_named_and_not_shown(
    file: Write, key: str, value: str, rule: str
) -> None:
    problem = _problem_in(file(f"{key} = {value}"))

    assert problem.startswith(f"setting {key}")
    assert rule in problem
    assert "SECRET" not in problem


def test_a_bad_value_of_the_environment_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAINTAINER_DATABASE", f"mysql://me:{SECRET}@host/db")

    problem = _problem()

    assert problem.startswith("setting database (from MAINTAINER_DATABASE) is not a valid SQLite")
    assert SECRET not in problem


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("MAINTAINER_GRACE", "soon", "setting grace (from MAINTAINER_GRACE) is not a valid dur"),
        ("maintainer_scopes", "[1]", "setting scopes.0 (from MAINTAINER_SCOPES) must be text"),
        ("MAINTAINER_SERVE", '{"jitter": "x"}', "setting serve.jitter (from MAINTAINER_SERVE) is"),
        ("MAINTAINER_TARGETS", "[{}]", "setting name in [[targets]] number 1 (from MAINTAINER_TA"),
        ("MAINTAINER_ROOM", '{"keep": 1}', "MAINTAINER_ROOM: unknown key 'room.keep'"),
    ],
)
def test_the_variable_that_sets_a_bad_value_is_named(
    file: Write, variable: str, value: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)

    assert _problem(file('[serve]\nlisten = "127.0.0.1:1"')).startswith(problem)


def test_no_variable_is_named_for_a_bad_value_of_the_file_or_the_command_line(
    file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAINTAINER_GRACE", "1h")
    monkeypatch.setenv("MAINTAINER_SERVE", '{"jitter": "1m"}')

    assert _problem(file('grace = "2h"'), grace="soon").startswith("setting grace is not")
    path = file('[serve]\ninterval = "x"')
    assert _problem(path).startswith(f"setting serve.interval (from {path}) is not")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[room]\nkeep_free = "x"', "setting room.keep_free (from PATH) is not a valid amount"),
        (
            '[[targets]]\nname = "a"\ngrace = "x"',
            "setting grace in [[targets]] number 1 (from PATH) is",
        ),
        (
            '[[targets]]\nstore = "s3://a/b"',
            "setting name in [[targets]] number 1 (from PATH) is missing",
        ),
        (
            '[[targets]]\nname = "a"\n[[targets]]\nname = "a"',
            "setting targets (from PATH): there are 2",
        ),
    ],
)
def test_the_file_that_sets_a_bad_value_is_named(file: Write, text: str, problem: str) -> None:
    path = file(text)

    assert _problem(path).startswith(problem.replace("PATH", str(path)))


def test_a_bad_table_in_the_environment_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAINTAINER_SERVE", f"{{{SECRET}")

    problem = _problem()

    assert problem == "environment: MAINTAINER_SERVE is not valid JSON"
    assert SECRET not in problem


def test_a_bad_value_of_the_command_line_is_named() -> None:
    assert _problem(grace="soon") == (
        "setting grace is not a valid duration; use 90s, 30m, 24h, 7d, 2w or 1d12h"
    )


@pytest.mark.parametrize(
    ("variable", "advice"),
    [
        ("maintainer_token", ""),
        ("MAINTAINER_", ""),
        ("MAINTAINER_GRACEE", ": did you mean MAINTAINER_GRACE?"),
        ("MAINTAINER_KEEP_FREE", ": set room.keep_free in a configuration file"),
        ("MAINTAINER_ROOM__KEEP_FREE", ": set room.keep_free in a configuration file"),
        ("MAINTAINER_SERVE_LISTEN", ": set serve.listen in a configuration file"),
    ],
)
def test_a_variable_that_is_no_setting_is_named_and_its_value_not_shown(
    variable: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, SECRET)

    assert _problem() == f"environment: {variable} is not a setting{advice}"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("grace = ", id="half a line"),
        pytest.param('grace = "1h"\ngrace = "2h"', id="a key twice"),
        pytest.param(b'grace = "\xff"', id="invalid UTF-8"),
    ],
)
def test_a_file_that_is_no_toml_is_named(file: Write, content: str | bytes) -> None:
    path = file(content)

    assert _problem(path).startswith(f"{path} is not a valid TOML file")


def test_a_file_that_does_not_exist_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing.toml"

    assert _problem(missing) == f"the configuration file {missing} does not exist"
    assert _problem(tmp_path) == f"the configuration file {tmp_path} is a folder"
    monkeypatch.setenv("MAINTAINER_CONFIG", str(missing))
    assert _problem() == f"the configuration file {missing} does not exist"


# The example.


def _without_comments() -> str:
    """Return the example with every setting active: `#key = …` and `#[table]`, not `# words`."""
    return re.sub(r"^#(?=[a-z[])", "", EXAMPLE.read_text(), flags=re.MULTILINE)


def test_the_example_as_it_is_sets_nothing() -> None:
    assert tomllib.loads(EXAMPLE.read_text()) == {}
    assert load_settings(EXAMPLE, {}).model_dump() == Settings.defaults().model_dump()


def test_the_example_without_its_comments_is_valid_and_gives_the_defaults(file: Write) -> None:
    settings = load_settings(file(_without_comments()), {})

    for name, field in Settings.model_fields.items():
        if name not in ("room", "targets", "discover") and field.default is not None:
            assert getattr(settings, name) == field.default, name
    assert settings.room.model_copy(update={"rules": ()}) == RoomSettings()
    assert [rule.prefix for rule in settings.room.rules] == ["setup-node-"]
    assert [target.name for target in settings.targets] == ["app", "site", "builder"]
    assert [table.name for table in settings.discover] == ["builders", "octo"]


def test_the_example_names_every_setting() -> None:
    example = tomllib.loads(_without_comments())

    assert list(example) == list(Settings.model_fields)
    assert list(example["room"]) == list(RoomSettings.model_fields)
    assert list(example["room"]["rules"][0]) == list(RuleSettings.model_fields)
    assert list(example["serve"]) == list(ServeSettings.model_fields)
    named = {key for target in example["targets"] for key in target}
    assert named == set(TargetSettings.model_fields)
    own = DiscoverSettings.model_fields.keys() - TargetSettings.model_fields.keys()
    assert {key for table in example["discover"] for key in table} >= own | {"name", "store"}


@pytest.mark.parametrize(
    "settings",
    [Settings, RoomSettings, RuleSettings, ServeSettings, TargetSettings, DiscoverSettings],
)
def test_the_example_tells_what_every_setting_means(settings: type[BaseModel]) -> None:
    prose = re.findall(r"^# (.*)$", EXAMPLE.read_text(), flags=re.MULTILINE)
    words = " ".join(" ".join(prose).split()).lower()

    for name, field in settings.model_fields.items():
        assert field.description, name
        assert " ".join(field.description.split()).lower() in words, name


# What a workflow's own environment says.


def test_what_github_says_is_read_and_an_empty_variable_is_not_set() -> None:
    settings = GitHubSettings.read(
        {
            "ACTIONS_RESULTS_URL": "https://results.example.com/",
            "ACTIONS_CACHE_URL": "",
            "ACTIONS_RUNTIME_TOKEN": "runtime",
            "ACTIONS_CACHE_SERVICE_V2": "True",
            "GITHUB_TOKEN": SECRET,
            "GITHUB_REPOSITORY": "octo/cache",
            "GITHUB_ACTOR": "octocat",
        }
    )

    assert settings.results_url == "https://results.example.com/"
    assert settings.cache_url is None
    assert settings.cache_service_v2
    assert settings.repository == "octo/cache"
    assert settings.api_url == "https://api.github.com"
    assert settings.runtime_token
    assert settings.runtime_token.get_secret_value() == "runtime"
    assert settings.token
    assert settings.token.get_secret_value() == SECRET


def test_outside_of_a_workflow_nothing_is_said() -> None:
    settings = GitHubSettings.read({})

    told = settings.model_dump(exclude={"api_url", "token_env", "runtime_token_env"})
    assert set(told.values()) == {None, False}


@pytest.mark.parametrize("show", [repr, str, lambda settings: settings.model_dump_json()])
def test_no_way_of_showing_the_settings_shows_a_token(
    show: Callable[[GitHubSettings], str],
) -> None:
    settings = GitHubSettings.read({"GITHUB_TOKEN": SECRET, "ACTIONS_RUNTIME_TOKEN": SECRET})

    assert SECRET not in show(settings)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GITHUB_REPOSITORY", SECRET),
        ("GITHUB_REPOSITORY", f"octo/cache/{SECRET}"),
        ("GITHUB_REPOSITORY", f"octo/cache\n{SECRET}"),
        ("GITHUB_REPOSITORY", "octo/cache\n"),
        ("ACTIONS_CACHE_SERVICE_V2", SECRET),
    ],
)
def test_a_bad_variable_of_githubs_is_named_and_not_shown(variable: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        GitHubSettings.read({variable: value})

    assert str(caught.value).startswith(f"setting {variable} ")
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
