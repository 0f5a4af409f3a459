"""Connections to buckets, by ``obstore``: the only place that loads it, and only where it is used."""

import os
import re
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from batchllm.errors import UsageError
from batchllm.extras import install_command
from batchllm.hosts import is_local
from batchllm.stores.failures import CREDENTIALS, job_error
from batchllm.stores.url import ObjectUrl

if TYPE_CHECKING:
    from concurrent.futures import Future

    from obstore.store import AzureStore, GCSStore, S3Store

    Bucket = AzureStore | GCSStore | S3Store

T = TypeVar("T")

_PREFIXES = {"s3": ("AWS_",), "gs": ("GOOGLE_",), "az": ("AZURE_",)}
# What is no secret: where the store is, and where its credentials are.
_OPEN = re.compile(
    r"REGION|ENDPOINT|BASE_URL|SKIP_SIGNATURE|PAYER|ACCOUNT_NAME|ROLE_ARN|APPLICATION_CREDENTIALS|_FILE$|_URI$"
)
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
# One request moves at most a part of an object, some mebibytes.
_TIMEOUTS = {"connect_timeout": "5s", "read_timeout": "30s", "timeout": "5min"}
_RETRIES: Any = {
    "max_retries": 8,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=10), "base": 2},
}


def bucket_of(url: ObjectUrl) -> "Bucket":
    """Returns a connection to the bucket of a URL, with the credentials of the environment.

    Raises:
        UsageError: ``obstore`` is missing, or the environment names an endpoint that may not be used.
    """
    settings = tuple(sorted(pair for pair in os.environ.items() if pair[0].startswith(_PREFIXES[url.scheme])))
    return _bucket(url.scheme, url.bucket, settings)


def settings_of(scheme: str, environ: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Returns the names of the variables that a store takes: those that are no secret, and the others."""
    names = [name for name in sorted(environ) if name.startswith(_PREFIXES.get(scheme, ())) and environ[name]]
    public = [name for name in names if _OPEN.search(name)]
    return public, [name for name in names if name not in public]


@lru_cache(maxsize=32)
def _bucket(scheme: str, bucket: str, settings: tuple[tuple[str, str], ...]) -> "Bucket":
    try:
        from obstore.exceptions import BaseError
        from obstore.store import AzureStore, GCSStore, S3Store
    except ImportError:
        raise UsageError(f"{scheme}:// needs obstore; install with: {install_command('cloud')}") from None
    options: Any = {**_TIMEOUTS, "allow_http": _is_plain(scheme, dict(settings))}
    kinds: Any = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
    try:
        return kinds[scheme](bucket, client_options=options, retry_config=_RETRIES)  # type: ignore[no-any-return]
    except (BaseError, OSError, ValueError):
        variables = "* or ".join(_PREFIXES[scheme])
        reason = f"the variables {variables}* of the environment lack something, or cannot be used"
        raise UsageError(f"{scheme}://{bucket}: {reason}; {CREDENTIALS[scheme]}") from None


def _is_plain(scheme: str, settings: dict[str, str]) -> bool:
    """Whether the endpoint of the environment is plain http, which has to stay in a private network."""
    named = next((name for name in _ENDPOINTS[scheme] if settings.get(name)), None)
    if named is None:
        return False
    try:
        parts = urlsplit(settings[named].strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if "@" in parts.netloc:
        raise UsageError(f"{named} must not hold a name or password; the store takes credentials of its own")
    if parts.scheme not in ("http", "https") or not host or not host.isascii() or " " in host:
        raise UsageError(f"{named} is not a URL of the form https://host")
    if parts.scheme == "http" and not is_local(host):
        raise UsageError(f"{named} is plain http to {host}, where anybody can read it; use https://")
    return parts.scheme == "http"


def ask(url: ObjectUrl, request: "Callable[[Bucket], T]", *, writing: bool = False) -> T:
    """Returns what a request to the bucket of a URL returns.

    Raises:
        JobError: The request failed; see ``failures.job_error``.
    """
    bucket_of(url)  # says what is missing, before the errors of the library can be named
    from obstore.exceptions import BaseError

    try:
        return interruptible(lambda: request(bucket_of(url)))
    except (BaseError, FileNotFoundError, ValueError) as error:
        raise job_error(error, url, writing=writing) from None


def interruptible(work: Callable[[], T]) -> T:
    """Does what blocks, so that a signal ends the wait: in the main thread, a thread of its own does the work."""
    if threading.current_thread() is not threading.main_thread():
        return work()
    return background(work).result()


def background(work: Callable[[], T]) -> "Future[T]":
    """Begins work in a thread that the end of the program does not wait for."""
    from concurrent.futures import Future

    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever waits for it gets it
            done.set_exception(error)

    threading.Thread(target=run, name="batchllm-store", daemon=True).start()
    return done
