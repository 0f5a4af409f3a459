"""URLs of objects: what names a file that is elsewhere.

``s3://bucket/key``, ``gs://bucket/key`` and ``az://container/key`` can be read and written, ``https://host/path`` can
only be read. The key of the first three stands as it is, so ``%``, ``?`` and ``#`` are ordinary characters of it, as
for the vendors' own tools. What follows the ``?`` of an ``https://`` URL can be a signature. So it is sent, and never
shown, stored or compared.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from batchllm.errors import UsageError
from batchllm.hosts import is_local

BUCKETS = ("s3", "gs", "az")
"""Schemes of object stores, which can be read and written."""
_WEB = ("https", "http")
# ``pathlib.Path`` makes one slash of two.
_SCHEME = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]+)://|((?i:s3|gs|az|https?)):/)(?=[^/])")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class ObjectUrl:
    """The URL of an object, or of all objects below a prefix.

    Attributes:
        scheme: ``s3``, ``gs``, ``az``, ``https`` or ``http``.
        bucket: The bucket or container; of a web address the host with its port.
        key: The object's key, without a slash at its beginning; of a web address the path as it is written.
        query: What follows the ``?`` of a web address. Only the request has it.
    """

    scheme: str
    bucket: str
    key: str
    query: str = field(default="", repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}{f'?{_HIDDEN}' if self.query else ''}"

    @property
    def name(self) -> str:
        """The last part of the key, as of a path."""
        name = (self.key.rstrip("/") if self.is_prefix else self.key).rpartition("/")[2]
        return name if self.is_writable else unquote(name).replace("\0", "").rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The last suffix of the name, with its dot; empty where there is none."""
        return PurePosixPath(self.name).suffix

    @property
    def is_prefix(self) -> bool:
        """Whether it stands for the objects below it: its key is empty, or ends with a slash."""
        return self.is_writable and (not self.key or self.key.endswith("/"))

    @property
    def is_incomplete(self) -> bool:
        """Whether it was read from its shown form, in which the query is hidden."""
        return self.query == _HIDDEN

    @property
    def is_writable(self) -> bool:
        """Whether objects can be put there."""
        return self.scheme in BUCKETS

    def with_name(self, name: str) -> "ObjectUrl":
        """Returns the URL of another object beside this one, or of another prefix beside a prefix."""
        below = self.key.rstrip("/") if self.is_prefix else self.key
        slash = "/" if self.is_prefix and name else ""
        return replace(self, key=below[: below.rfind("/") + 1] + name + slash, query="")

    def __truediv__(self, name: str) -> "ObjectUrl":
        """Returns the URL of an object below this prefix."""
        return replace(self, key=f"{self.key.rstrip('/')}/{name}".lstrip("/"), query="")


def is_url(text: object) -> bool:
    """Whether a text is meant as the URL of an object, right or wrong, and not as a path."""
    return _SCHEME.match(str(text)) is not None


def object_url(text: object) -> ObjectUrl:
    """Reads the URL of an object.

    Args:
        text: The URL; that with one slash for two, which ``pathlib.Path`` makes of it, is read too.

    Raises:
        UsageError: It is none, has a name or password, or is plain http to a host of the internet.
    """
    found = _SCHEME.match(str(text))
    scheme = (found[1] or found[2]).lower() if found else ""
    if found is None or scheme not in (*BUCKETS, *_WEB):
        raise UsageError(
            f"{_shown(str(text))}: unknown kind of URL; use s3://, gs://, az:// or https://, or the path of a file"
        )
    rest = str(text)[found.end() :]
    bucket, _, key = rest.partition("/")
    if "@" in bucket:
        raise UsageError(
            f"a URL of {scheme}:// must not hold a name or password; credentials come from the environment"
        )
    if any(not sign.isprintable() for sign in rest) or "\\" in bucket:
        raise UsageError(f"{_shown(str(text))}: the URL has characters that cannot be shown; correct it")
    return _bucket_url(scheme, bucket, key) if scheme in BUCKETS else _web_url(scheme, rest)


def _bucket_url(scheme: str, bucket: str, key: str) -> ObjectUrl:
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{scheme}://{bucket}/{key}: {bucket!r} cannot be the name of a bucket")
    if any(part in ("", ".", "..") for part in key.removesuffix("/").split("/")) and key:
        raise UsageError(
            f"{scheme}://{bucket}/{key}: a key with an empty part, '.' or '..' cannot be read; name another object"
        )
    return ObjectUrl(scheme, bucket, key)


def _web_url(scheme: str, rest: str) -> ObjectUrl:
    try:
        parts = urlsplit(f"//{rest}")
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError:
        host, port = "", None
    if not host or any(sign.isspace() for sign in rest):
        raise UsageError(f"{_shown(f'{scheme}://{rest}')}: not a URL; a space in it is written %20")
    if scheme == "http" and not is_local(host):
        raise UsageError(
            f"http://{host}: plain http is read from this machine and private networks only; use https://"
        )
    where = f"[{host}]" if ":" in host else host
    return ObjectUrl(scheme, f"{where}:{port}" if port else where, parts.path.lstrip("/"), parts.query)


def _shown(text: str) -> str:
    """What can be shown of a URL that is wrong: no name, password or query."""
    before = ascii(text.partition("?")[0])[1:-1]
    return re.sub(r"//?[^/]*@", "//", before)
