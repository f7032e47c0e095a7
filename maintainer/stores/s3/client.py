"""Requests to a bucket, with the credentials that the AWS SDK finds; none of them is kept here."""

import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from functools import cache, partial
from hashlib import md5
from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from aiohttp import ClientError as BodyError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
)
from botocore.loaders import Loader, create_loader
from botocore.parsers import ResponseParserError
from botocore.utils import parse_timestamp

from maintainer.errors import (
    ChangedError,
    EntryError,
    RefusedError,
    StoreError,
    UnknownCacheError,
    UnreadableError,
)
from maintainer.model.doubt import Cause
from maintainer.model.reason import BlobsExpire, StoreNote, UploadsLeft, VersionsKept
from maintainer.sanitize import printable
from maintainer.stores.http.answers import LATEST, to_utc
from maintainer.stores.http.dates import read_http_date
from maintainer.stores.objects.layout import Layout
from maintainer.stores.objects.requests import (
    MAX_SIZE,
    MissingError,
    Object,
    OtherError,
    Sender,
    UnsupportedError,
    connecting,
    folder_names,
    malformed,
    refuse_others,
)
from maintainer.stores.s3.address import Address
from maintainer.stores.s3.configuration import configuring

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_s3.type_defs import (
        ErrorTypeDef,
        LifecycleRuleOutputTypeDef,
        ListObjectsV2OutputTypeDef,
    )

log = logging.getLogger(__name__)

_MISSING = frozenset({"404", "NoSuchKey"})
_NOT_AS_EXPECTED = frozenset({"412", "PreconditionFailed", "ConditionalRequestConflict"})
_UNSUPPORTED = frozenset({"501", "NotImplemented"})
_CONDITIONS = frozenset({"If-Match", "If-None-Match"})
_LOCKED = frozenset({"InvalidRequest", "ObjectUnderActiveHold", "RetentionPolicyNotMet"})
"""What MinIO and Google say of an object that is locked; AWS denies access."""
_REFUSED = frozenset({"401", "403", "AccessDenied", "Forbidden", "MethodNotAllowed"}) | _LOCKED
_KINDS: Mapping[frozenset[str], type[StoreError]] = {
    _MISSING: MissingError,
    _NOT_AS_EXPECTED: OtherError,
    _UNSUPPORTED: UnsupportedError,
    _REFUSED: RefusedError,
}
_UNREADABLE = frozenset({"InvalidObjectState"})
"""What is said of an object that is archived."""
_ATTEMPTS = 5
_FIRST_YEAR = 2006
"""The protocol is as old: a service that shows earlier times, such as 1970, does not know them."""
_LONG_AGO = timedelta(days=7)
"""An upload that began before this was abandoned."""


class Bucket(Sender):
    """One bucket."""

    def __init__(self, client: "S3Client", name: str) -> None:
        super().__init__(name, _in_one_line)
        self._client = client

    async def list(self, prefix: str) -> AsyncIterator[Sequence[Object]]:
        """List objects, up to a thousand at a time, in the order of their keys."""
        async for page in self.pages(prefix, partial(self._page, prefix, {})):
            contents = page.get("Contents", [])
            found = [_object(one.get("Key", ""), one.get("Size"), one) for one in contents]
            refuse_others(found, prefix)
            yield found

    async def folders(self, prefix: str) -> AsyncIterator[Sequence[str]]:
        """List folders, up to a thousand at a time."""
        folders = {"Delimiter": "/"}
        async for page in self.pages(prefix, partial(self._page, prefix, folders)):
            common = page.get("CommonPrefixes", [])
            yield folder_names([one.get("Prefix", "") for one in common], prefix)

    async def _page(
        self, prefix: str, more: Mapping[str, Any], token: str | None
    ) -> "tuple[ListObjectsV2OutputTypeDef, str | None]":
        after: dict[str, Any] = {"ContinuationToken": token} if token else {}
        page = await self._client.list_objects_v2(Bucket=self._name, Prefix=prefix, **more, **after)
        if not page.keys() & {"Name", "IsTruncated", "Contents", "CommonPrefixes"}:
            raise malformed(prefix)  # Nothing at all is not an empty list.
        date = page["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        self.requests.answered_at = read_http_date(date)
        return page, page.get("NextContinuationToken", "") if page.get("IsTruncated") else None

    async def head(self, key: str) -> Object | None:
        """Look an object up."""
        try:
            call = self._client.head_object(Bucket=self._name, Key=key)
            found = await self.send("look-up", key, call)
        except MissingError:
            return None
        date = found["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        return _object(key, found.get("ContentLength"), found, read_http_date(date))

    async def get(
        self, key: str, *, limit: int, is_wanted: Callable[[bytes], bool] = bool
    ) -> tuple[Object, bytes] | None:
        """Read an object of at most so many bytes, or only its beginning if it is not wanted."""
        try:
            call = self._client.get_object(Bucket=self._name, Key=key)
            found = await self.send("download", key, call)
        except MissingError:
            return None
        size: int | None = found.get("ContentLength")
        async with found["Body"] as body:
            content = await self.download(key, size, body.read, limit=limit, is_wanted=is_wanted)
        return _object(key, len(content) if size is None else size, found), content

    async def put(self, key: str, content: bytes, *, over: str | None) -> bool:
        """Write an object on condition."""
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if over is None else {"IfMatch": over}
        call = self._client.put_object(Bucket=self._name, Key=key, Body=content, **condition)
        try:
            await self.send("upload", key, call)
        except (MissingError, OtherError):
            return False
        return True

    async def overwrite(self, key: str, content: bytes) -> None:
        """Write an object, whatever is there."""
        call = self._client.put_object(Bucket=self._name, Key=key, Body=content)
        await self.send("upload", key, call)

    async def delete(self, tags: Mapping[str, str | None]) -> Mapping[str, StoreError]:
        """Delete up to a thousand objects, those without a tag by one request."""
        problems: dict[str, StoreError] = {}
        for key, tag in tags.items():
            if tag is not None and (problem := await self._delete_over(key, tag)):
                problems[key] = problem
        others = [key for key, tag in tags.items() if tag is None]
        try:
            return {**problems, **(await self._delete_all(others) if others else {})}
        except StoreError as error:
            if len(others) == len(tags):
                raise
            return {**problems, **dict.fromkeys(others, error)}

    async def _delete_over(self, key: str, tag: str) -> StoreError | None:
        """Delete an object on condition; a service may ignore that."""
        try:
            call = self._client.delete_object(Bucket=self._name, Key=key, IfMatch=tag)
            await self.send("delete", key, call)
        except MissingError:
            pass
        except OtherError:
            return ChangedError("a build has written it since it was looked up")
        except UnsupportedError:
            return await self._delete_if_same(key, tag)
        except RefusedError as error:
            return EntryError(str(error))
        except StoreError as error:
            return error
        return None

    async def _delete_if_same(self, key: str, tag: str) -> StoreError | None:
        """Look an object up, and delete it: some services know no conditions."""
        try:
            found = await self.head(key)
            if found and found.tag != tag:
                return ChangedError("a build has written it since it was looked up")
            return (await self._delete_all([key])).get(key) if found else None
        except StoreError as error:
            return error

    async def _delete_all(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        call = self._client.delete_objects(
            Bucket=self._name, Delete={"Objects": [{"Key": key} for key in keys]}
        )
        done = await self.send("delete", keys[0], call)
        failed = {one.get("Key", ""): one for one in done.get("Errors", [])}
        gone = {one.get("Key", "") for one in done.get("Deleted", [])}
        return {key: _why_not(failed.get(key)) for key in keys if key not in gone}

    async def notes(self, layout: Layout, now: datetime) -> tuple[StoreNote, ...]:
        """Read how the bucket is set up, as far as that is allowed; the worst comes first."""
        found: list[StoreNote | None] = []
        call = self._client.get_bucket_lifecycle_configuration(Bucket=self._name)
        known = await self.ask(call)
        rules = known.get("Rules", []) if known else []
        active = [one for one in rules if one.get("Status") == "Enabled"]
        days = min(filter(None, (_days_of(rule, layout.blobs) for rule in active)), default=None)
        found.append(BlobsExpire(days) if days else None)
        versions = await self.ask(self._client.get_bucket_versioning(Bucket=self._name))
        if versions and versions.get("Status") == "Enabled":
            expires = any(
                "NoncurrentVersionExpiration" in rule and layout.blobs.startswith(_prefix_of(rule))
                for rule in active
            )
            found.append(None if expires else VersionsKept())
        uploads = await self.ask(
            self._client.list_multipart_uploads(Bucket=self._name, Prefix=layout.blobs)
        )
        begun = [one.get("Initiated") for one in uploads.get("Uploads", [])] if uploads else []
        old = sum(now - at > _LONG_AGO for at in begun if at)
        found.append(UploadsLeft(old, _LONG_AGO.days) if old else None)
        return tuple(note for note in found if note)


def _why_not(said: "ErrorTypeDef | None") -> StoreError:
    """Return why an object was not deleted, by what the answer says of it."""
    if said is None:
        return StoreError("the service did not say whether it was deleted")
    code = said.get("Code", "")
    problem = printable(f"{code}: {said.get('Message', '')}")
    return EntryError(problem) if code in _REFUSED else StoreError(problem)


def _days_of(rule: "LifecycleRuleOutputTypeDef", blobs: str) -> int | None:
    """Return after how many days a rule deletes some blobs; builds set no tags on them."""
    chosen = rule.get("Filter", {})
    both = chosen.get("And", {})
    prefix = _prefix_of(rule)
    may_match = blobs.startswith(prefix) or prefix.startswith(blobs)
    if "Tag" in chosen or "Tags" in both or not may_match:
        return None
    return rule.get("Expiration", {}).get("Days")


def _prefix_of(rule: "LifecycleRuleOutputTypeDef") -> str:
    """Return how the keys begin that a rule is about."""
    chosen = rule.get("Filter", {})
    return chosen.get("And", {}).get("Prefix") or chosen.get("Prefix") or rule.get("Prefix") or ""


def _never_again(
    response: tuple[object, Any] | None,
    caught_exception: Exception | None,
    request_dict: Mapping[str, Any],
    **_: object,
) -> None:
    """Let the SDK not repeat what is right only directly after a look-up, such as a deletion."""
    if request_dict["headers"].keys() & _CONDITIONS:
        return
    if caught_exception:
        raise caught_exception
    if response and "Error" in response[1]:
        raise ClientError(response[1], "")


def _add_md5(params: Mapping[str, Any], **_: object) -> None:
    """Add the checksum that older services require of a list of deletions; newer ones know both."""
    digest = md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = b64encode(digest).decode()


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """Turn the errors of the SDK into ours."""
    try:
        yield
    except ClientError as error:
        raise _translate(what, error) from None
    except NoCredentialsError:
        raise StoreError(
            "there are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or run where a role is attached"
        ) from None
    except CredentialRetrievalError as error:
        # What a program has said may be a secret.
        by = printable(str(error.kwargs.get("provider")))
        raise StoreError(f"there are no AWS credentials: {by} of the AWS SDK failed") from None
    except (BotoCoreError, BodyError, OSError) as error:
        raise StoreError(f"{printable(what)}: {printable(str(error))}") from None
    except (AttributeError, KeyError, TypeError, ValueError, ResponseParserError):
        # The SDK takes answers apart without a check.
        log.debug("the SDK failed", exc_info=True)
        raise malformed(what) from None


def _translate(what: str, error: ClientError) -> StoreError:
    said = error.response.get("Error", {})
    code = str(said.get("Code", ""))
    problem = f"{printable(what)}: {printable(code)}: {printable(str(said.get('Message', '')))}"
    if code == "NoSuchBucket":
        return UnknownCacheError(printable(code))
    if code in _UNREADABLE:
        return UnreadableError(Cause.NO_CONTENT, problem)
    kinds = (kind for codes, kind in _KINDS.items() if code in codes)
    kind = next(kinds, StoreError)
    # What the SDK has sent again may have been carried out at first.
    is_certain = kind is not RefusedError or not _is_retried(error)
    return (kind if is_certain else StoreError)(problem)


def _is_retried(error: ClientError) -> bool:
    """Whether the SDK had sent the same before, and lost the answer or got a temporary one."""
    metadata: Mapping[str, Any] = error.response.get("ResponseMetadata", {})
    return bool(metadata.get("RetryAttempts"))


def _object(
    key: str, size: int | None, answer: Mapping[str, Any], answered_at: datetime | None = None
) -> Object:
    """Return what the service says about an object; the times of look-ups have no fractions."""
    at, tag = to_utc(answer.get("LastModified")), answer.get("ETag")
    if not key or size is None or not 0 <= size <= MAX_SIZE or not at or not tag:
        raise malformed(key)
    at = at.replace(microsecond=0) if at.year >= _FIRST_YEAR else LATEST
    # Services differ, and some in two answers: weak or not, and with quotes or without.
    tag = '"' + tag.removeprefix("W/").strip('"') + '"'
    return Object(key, size, at, tag, answered_at)


def _read_time(value: str) -> datetime:
    """Read a time of an answer. Those of lists are read here: the SDK's parser of all forms of
    times would take half of the time of a list.
    """
    with suppress(ValueError, TypeError):
        if (at := datetime.fromisoformat(value)).tzinfo:
            return at
    return parse_timestamp(value)


@cache
def _models(places: str | None) -> Loader:
    """Return the SDK's descriptions of services, read once: that took a third of a short run."""
    return create_loader(places)


@asynccontextmanager
async def open_bucket(address: Address) -> AsyncIterator[Bucket]:
    """Connect to the bucket of a cache."""
    config = AioConfig(
        connect_timeout=10,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        s3={"addressing_style": "path" if address.path_style else "auto"},
        # As BuildKit does, for services that do not know newer checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    session = get_session()
    with connecting(address.name), _in_one_line(address.name), configuring():
        models = _models(session.get_config_variable("data_path"))
        session.register_component("data_loader", models)
        parsers = session.get_component("response_parser_factory")
        parsers.set_parser_defaults(timestamp_parser=_read_time)
        if (credentials := await session.get_credentials()) is None:
            raise NoCredentialsError
        await credentials.get_frozen_credentials()  # Some are only read now.
        opening = session.create_client(
            "s3", region_name=address.region, endpoint_url=address.endpoint_url, config=config
        )
        client = await opening.__aenter__()
    for name in ("DeleteObjects", "DeleteObject", "PutObject"):
        client.meta.events.register(f"needs-retry.s3.{name}", _never_again)
    client.meta.events.register("before-call.s3.DeleteObjects", _add_md5)
    try:
        yield Bucket(client, address.bucket)
    finally:
        await opening.__aexit__(None, None, None)
