"""What hosts, repositories and tags may be called, and where a repository is.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

import re
from dataclasses import dataclass

HUB = "docker.io"
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::([0-9]{1,5}))?")
_PORTS = range(1, 65_536)
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MAX_REPOSITORY = 255


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of a registry."""

    host: str
    """With the port, if it is not the usual one."""
    name: str
    insecure: bool = False
    """Whether the registry speaks HTTP without TLS."""

    @property
    def url(self) -> str:
        """The URL of the registry."""
        host = "registry-1.docker.io" if self.host == HUB else self.host
        return f"{'http' if self.insecure else 'https'}://{host}"

    @property
    def login(self) -> str:
        """The name by which Docker's configuration knows the registry."""
        return "https://index.docker.io/v1/" if self.host == HUB else self.host


def is_host(text: str) -> bool:
    """Whether a text can be the host of a registry, with or without a port."""
    found = _HOST.fullmatch(text)
    return found is not None and (found[1] is None or int(found[1]) in _PORTS)


def is_known_as_host(host: str) -> bool:
    """Whether Docker takes a host for one: else, it is an owner of images on Docker Hub.

    Source: `splitDockerDomain` in https://github.com/distribution/reference/blob/main/normalize.go
    """
    return "." in host or ":" in host or host == "localhost"


def is_tag(text: str) -> bool:
    """Whether a text can be a tag."""
    return _TAG.fullmatch(text) is not None


def is_repository(text: str) -> bool:
    """Whether a text can be the name of a repository."""
    return len(text) <= _MAX_REPOSITORY and _REPOSITORY.fullmatch(text) is not None
