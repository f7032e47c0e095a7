"""An installation of a GitHub App, and its private key, which is read when it is needed."""

import os

from pydantic import BaseModel, ConfigDict

from maintainer.errors import UsageError
from maintainer.sanitize import printable
from maintainer.settings.variables import shown_variable

_LARGEST_KEY = 64 * 1024


class AppSettings(BaseModel):
    """An installation of a GitHub App, and where the App's private key is."""

    model_config = ConfigDict(frozen=True)

    app_id: int
    installation: int
    key_env: str | None = None
    key_file: str | None = None

    @property
    def key_name(self) -> str:
        """What messages call the place of the key."""
        if self.key_file is not None:
            return printable(self.key_file)
        return shown_variable(self.key_env or "", "app_key_env")

    def read_key(self) -> str:
        """Read the private key; it is never kept. Raises UsageError, without it."""
        if self.key_file is None:
            # Where a variable has only one line, line breaks are often spelled so.
            key = os.environ.get(self.key_env or "", "").replace("\\n", "\n")
        else:
            key = _read_text(self.key_file)
        if not key.strip():
            raise UsageError(f"the private key of the GitHub App: {self.key_name} is not set")
        return key


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123 - it may be a device
            return file.read(_LARGEST_KEY)
    except OSError as error:
        problem = error.strerror or type(error).__name__
    except ValueError:
        problem = "it is not text"
    raise UsageError(f"the private key of the GitHub App: {printable(path)}: {problem}")
