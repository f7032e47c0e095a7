"""The settings of a run and of the service: defaults < file < environment < command line.

Only this package reads values from the environment.
"""

from maintainer.settings.app import AppSettings
from maintainer.settings.common import Settings
from maintainer.settings.github import (
    DEFAULT_API_URL,
    GitHubSettings,
    StepSettings,
    api_url_of,
    target_of,
    token_of,
)
from maintainer.settings.sources import (
    Source,
    config_file,
    is_folder,
    load_settings,
    name_of,
    read_sources,
)
from maintainer.settings.tables import RoomSettings, RuleSettings, ServeSettings
from maintainer.settings.targets import DiscoverSettings, TargetSettings
from maintainer.settings.values import (
    check_cron,
    parse_duration,
    parse_keep_free,
    parse_size,
    parse_sizes,
    split_listen,
)
from maintainer.settings.variables import VARIABLES, shown_variable

__all__ = [
    "DEFAULT_API_URL",
    "VARIABLES",
    "AppSettings",
    "DiscoverSettings",
    "GitHubSettings",
    "RoomSettings",
    "RuleSettings",
    "ServeSettings",
    "Settings",
    "Source",
    "StepSettings",
    "TargetSettings",
    "api_url_of",
    "check_cron",
    "config_file",
    "is_folder",
    "load_settings",
    "name_of",
    "parse_duration",
    "parse_keep_free",
    "parse_size",
    "parse_sizes",
    "read_sources",
    "shown_variable",
    "split_listen",
    "target_of",
    "token_of",
]
