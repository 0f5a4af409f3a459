"""What the errors of object stores mean for a job.

A store's message can hold signed URLs, headers and key names, so no text of it is passed on: only its HTTP status and
its error code, each of a fixed form, are read from it.
"""

import re

from batchllm.errors import CannotWrite, InputError, JobError, StorageFailure, UsageError
from batchllm.stores.url import ObjectUrl

_STATUS = re.compile(r"status code: (\d{3})\b")
# S3, Google's XML and Azure write it like this.
_CODE = re.compile(r"<Code>([A-Za-z][A-Za-z0-9]{0,63})</Code>")
_REFUSED_KEYS = frozenset(
    {
        "AuthenticationFailed", "AuthFailure", "ExpiredToken", "InvalidAccessKeyId", "InvalidAuthenticationInfo",
        "InvalidSecurity", "InvalidToken", "NoAuthenticationInformation", "RequestExpired", "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)  # fmt: skip
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"})
_OTHER_REGION = frozenset(
    {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
)
# Where machines ask for the credentials of their roles: reached only where the environment has none.
_METADATA = ("169.254.", "fd00:ec2", "metadata.google.internal", "/latest/api/token")
# What the libraries below the driver say of connections that fail.
_LOST = (
    ("Connection refused", "connection refused"),
    ("dns error", "there is no such host"),
    ("certificate", "its certificate is not trusted"),
    ("TimedOut", "it does not answer in time"),
)
CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with temporary ones AWS_SESSION_TOKEN too)",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
"""How each store is told whose credentials to use."""
_PUBLIC = {"s3": "AWS_SKIP_SIGNATURE", "gs": "GOOGLE_SKIP_SIGNATURE", "az": "AZURE_SKIP_SIGNATURE"}


def status_of(error: BaseException) -> int | None:
    """Returns the HTTP status of an error of the driver, ``None`` where no answer came."""
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None


def code_of(error: BaseException) -> str:
    """Returns the store's own code in an error of the driver (``NoSuchBucket``), empty where it has none."""
    found = _CODE.search(str(error))
    return found[1] if found else ""


def is_no_bucket(error: BaseException) -> bool:
    """Whether an error says that there is no such bucket."""
    return code_of(error) in _NO_BUCKET


def job_error(error: BaseException, url: ObjectUrl, *, writing: bool = False) -> JobError:
    """Returns what an error of the driver means for a job.

    Args:
        error: The driver's error.
        url: What was read or written.
        writing: It was written.

    Returns:
        ``UsageError`` for credentials or a region that are refused, ``InputError`` or ``CannotWrite`` for what cannot
        be read or written, ``StorageFailure`` for a store that does not answer, or not as it should.
    """
    status, code, text = status_of(error), code_of(error), str(error)
    said = code or (f"HTTP {status}" if status else "")
    name = type(error).__name__
    if any(address in text for address in _METADATA):
        return UsageError(
            f"{url}: no credentials were found; {CREDENTIALS[url.scheme]}, or {_PUBLIC[url.scheme]}=true "
            "for a public bucket"
        )
    if code in _REFUSED_KEYS or status == 401 or name == "UnauthenticatedError":
        return UsageError(f"{url}: the credentials are refused ({said}); {CREDENTIALS[url.scheme]}")
    if code in _OTHER_REGION or status in (301, 307):
        return UsageError(f"{url}: the bucket is in another region ({said}); set AWS_REGION to it")
    if code in _NO_BUCKET:
        return _refused(url, "there is no such bucket; create it, or correct its name", writing=writing)
    if name == "PermissionDeniedError" or status == 403:
        need = "written" if writing else "read"
        other = "name another place" if writing else "correct its name"
        reason = (
            f"it cannot be {need} with these credentials ({said or 'no permission'}); ask for permission, or "
        )
        return _refused(url, reason + other, writing=writing)
    if isinstance(error, FileNotFoundError):
        return _refused(url, "there is no such object; correct its name", writing=writing)
    if name == "PreconditionError":
        return changed(url)
    if isinstance(error, ValueError):
        return _refused(url, "the driver cannot use this name; name another object", writing=writing)
    return unreachable(url, said or next((words for sign, words in _LOST if sign in text), "no answer"))


def unreachable(url: ObjectUrl, said: str) -> StorageFailure:
    """Returns the error of a store that does not answer, or not as it should, after all attempts."""
    return StorageFailure(
        f"{url}: the store cannot be reached ({said}); check the connection and the endpoint, and run the same "
        "command again"
    )


def changed(url: ObjectUrl) -> InputError:
    """Returns the error of an object that is another than the one whose reading began."""
    return InputError(url, "it changed while it was read; run the same command again to read it anew")


def _refused(url: ObjectUrl, reason: str, *, writing: bool) -> JobError:
    return CannotWrite(f"{url}: {reason}") if writing else InputError(url, reason)
