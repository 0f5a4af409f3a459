"""What obstore's errors mean, in sentences that hold nothing of its texts but status and code."""

import re
import sys
from pathlib import Path

import pytest

from batchllm import stores
from batchllm.errors import CannotWrite, InputError, JobError, StorageFailure, UsageError
from batchllm.stores import driver, object_url
from batchllm.stores.failures import job_error

SECRETS = "hunter2hunter2"


def obstore_text(
    status: int, code: str = "", url: str = "https://s3.eu-west-1.amazonaws.com/b-1/a.csv"
) -> str:
    """The form of obstore 0.12, with secrets where stores have been seen to echo them."""
    body = (
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{SECRETS}</Message></Error>" if code else ""
    )
    signed = f"{url}?X-Amz-Credential={SECRETS}&X-Amz-Signature={SECRETS}"
    return (
        f"Generic S3 error: Error performing GET {signed} in 2ms - Server returned non-2xx status code: {status} "
        f'Whatever: {body}\n\nDebug source:\nGeneric {{ store: "S3", authorization: {SECRETS} }}'
    )


class GenericError(Exception):
    """As obstore calls it."""


class PermissionDeniedError(Exception):
    """As obstore calls it."""


class PreconditionError(Exception):
    """As obstore calls it."""


METADATA = "Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 1s - HTTP error"


@pytest.mark.parametrize(
    ("error", "reading", "writing", "says"),
    [
        (PermissionDeniedError(obstore_text(403, "InvalidAccessKeyId")), UsageError, UsageError, "InvalidAccessKeyId"),
        (PermissionDeniedError(obstore_text(403, "SignatureDoesNotMatch")), UsageError, UsageError, "AWS_SECRET"),
        (GenericError(obstore_text(400, "ExpiredToken")), UsageError, UsageError, "AWS_SESSION_TOKEN"),
        (GenericError(obstore_text(401)), UsageError, UsageError, "HTTP 401"),
        (GenericError(METADATA), UsageError, UsageError, "no credentials were found.*AWS_SKIP_SIGNATURE=true"),
        (GenericError(obstore_text(301, "PermanentRedirect")), UsageError, UsageError, "set AWS_REGION"),
        (PermissionDeniedError(obstore_text(403, "AccessDenied")), InputError, CannotWrite, "AccessDenied"),
        (GenericError(obstore_text(403)), InputError, CannotWrite, "HTTP 403"),
        (FileNotFoundError(obstore_text(404, "NoSuchBucket")), InputError, CannotWrite, "no such bucket"),
        (GenericError(obstore_text(404, "NoSuchBucket")), InputError, CannotWrite, "no such bucket"),
        (FileNotFoundError(obstore_text(404, "NoSuchKey")), InputError, CannotWrite, "no such object"),
        (PreconditionError(obstore_text(412)), InputError, InputError, "changed while it was read"),
        (ValueError(f'Could not parse path: Path "{SECRETS}"'), InputError, CannotWrite, "another object"),
        (GenericError(obstore_text(503, "SlowDown")), StorageFailure, StorageFailure, "SlowDown"),
        (GenericError(f"HTTP error: error sending {SECRETS}"), StorageFailure, StorageFailure, "no answer"),
        (GenericError(f"{SECRETS} Connection refused"), StorageFailure, StorageFailure, "connection refused"),
        (GenericError(f"dns error {SECRETS}"), StorageFailure, StorageFailure, "there is no such host"),
    ],
)  # fmt: skip
def test_an_error_of_the_driver_is_one_sentence_of_the_right_kind(
    error: Exception, reading: type[JobError], writing: type[JobError], says: str
) -> None:
    for kind, is_writing in ((reading, False), (writing, True)):
        found = job_error(error, object_url("s3://b-1/a.csv"), writing=is_writing)
        assert type(found) is kind
        message = str(found)
        assert message.startswith("s3://b-1/a.csv: ") and re.search(says, message)
        assert "\n" not in message and "hunter2" not in message


def test_settings_that_the_driver_cannot_use_are_named_without_their_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        UsageError, match=r"^az://c-1: the variables AZURE_\* .* set AZURE_STORAGE_ACCOUNT_NAME"
    ):
        stores.head(object_url("az://c-1/a.csv"))
    wrong = tmp_path / "account.json"
    wrong.write_text(f'{{"private_key": "{SECRETS}"}}')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(wrong))
    with pytest.raises(
        UsageError, match=r"^gs://b-1: the variables GOOGLE_\* .* GOOGLE_APPLICATION"
    ) as raised:
        stores.head(object_url("gs://b-1/a.csv"))
    assert "hunter2" not in str(raised.value)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    driver._bucket.cache_clear()
    with pytest.raises(UsageError, match=r"needs obstore; install with: .*(obstore|batchllm-cli\[cloud\])"):
        stores.head(object_url("s3://b-1/a.csv"))
