"""Fixtures: registries that run for as long as the tests do, each empty when a test begins."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.simulated_runs import Memory
from tests.stores.docker_registry import DockerRegistry, a_registry
from tests.stores.ghcr import Packages, packages_of


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with a_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def server_without_deletion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with a_registry(tmp_path_factory.mktemp("without"), deletes=False) as registry:
        yield registry


@pytest.fixture
def registry(server: DockerRegistry) -> DockerRegistry:
    server.empty()
    return server


@pytest.fixture
def undeletable(server_without_deletion: DockerRegistry) -> DockerRegistry:
    server_without_deletion.empty()
    return server_without_deletion


@pytest.fixture
def ghcr(undeletable: DockerRegistry) -> Iterator[Packages]:
    with packages_of(undeletable) as packages:
        yield packages


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory.make(tmp_path, 1)[0]
