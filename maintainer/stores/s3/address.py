"""`s3://BUCKET/PREFIX?…`: where a cache is, in the words of BuildKit's `type=s3`."""

from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from maintainer.stores.address import refuse_overlap, take_apart, write_address
from maintainer.stores.objects.layout import Layout

FORM = "s3://BUCKET/PREFIX?region=REGION"
_AWS = (".amazonaws.com", ".amazonaws.com.cn")
_BLOBS = "blobs/"
_MANIFESTS = "manifests/"
_KNOWN = (
    "region",
    "endpoint_url",
    "path_style",
    "names",
    "blobs_prefix",
    "manifests_prefix",
    "touch_refresh",
    "longest_export",
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a cache is."""

    bucket: str
    prefix: str = ""
    """The beginning of all keys: BuildKit adds no slash."""
    region: str | None = None
    endpoint_url: str | None = None
    path_style: bool = False
    """Whether the bucket is in the path of URLs, not in the name of the host."""
    blobs_prefix: str = _BLOBS
    manifests_prefixes: tuple[str, ...] = (_MANIFESTS,)
    """Of all indexes that share these blobs."""
    names: tuple[str, ...] = ()
    """Of the indexes to maintain, with `*` and `?`; all if empty."""
    touch_refresh: timedelta = timedelta(hours=24)
    """How old a blob may be before an export that finds it writes it anew."""
    longest_export: timedelta = timedelta(hours=2)
    """The time between the first blob that an export looks up and its index."""

    @property
    def layout(self) -> Layout:
        """Where it keeps what."""
        return Layout(
            name=self.name,
            prefix=self.prefix,
            blobs=self.prefix + self.blobs_prefix,
            manifests=tuple(self.prefix + one for one in self.manifests_prefixes),
            least_grace=self.touch_refresh + self.longest_export,
            names=self.names,
        )

    @property
    def name(self) -> str:
        """Return the parts that identify it, in their shortest form."""
        given = [("endpoint_url", self.endpoint_url)]
        if self.blobs_prefix != _BLOBS:
            given.append(("blobs_prefix", self.blobs_prefix))
        if self.manifests_prefixes != (_MANIFESTS,):
            given += [("manifests_prefix", one) for one in self.manifests_prefixes]
        given.append(("names", ";".join(self.names)))
        return write_address("s3", self.bucket, self.prefix, given)

    @property
    def identity(self) -> tuple[str, ...]:
        """The place of its blobs: two caches must not share it."""
        url = urlsplit(self.endpoint_url or "")
        is_aws = (url.hostname or "").endswith(_AWS)  # In each region a bucket is the same.
        service = "" if is_aws else url.netloc.lower() + url.path
        return ("s3", service, self.bucket, self.prefix + self.blobs_prefix)


def read_address(text: str) -> Address:
    """Read the setting `store`. Raises UsageError."""
    given = take_apart(text, _KNOWN, FORM, "the AWS SDK")
    blobs, manifests = given.one("blobs_prefix", _BLOBS), given.manifests(_MANIFESTS)
    refuse_overlap(blobs, manifests)
    return Address(
        bucket=given.host,
        prefix=given.path,
        region=given.one("region") or None,
        endpoint_url=given.url("endpoint_url", "https://s3.example.com"),
        path_style=given.flag("path_style"),
        blobs_prefix=blobs,
        names=given.names,
        manifests_prefixes=manifests,
        touch_refresh=given.duration("touch_refresh", "24h"),
        longest_export=given.duration("longest_export", "2h"),
    )
