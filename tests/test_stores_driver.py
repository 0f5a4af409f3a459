"""Where requests go, and which settings of the environment are secret."""

import pytest

from batchllm import stores
from batchllm.errors import UsageError
from batchllm.stores import object_url, settings_of


def test_variables_that_hold_secrets_are_told_from_those_that_do_not() -> None:
    public = {
        "AWS_REGION": "x", "AWS_DEFAULT_REGION": "x", "AWS_ENDPOINT_URL": "x", "AWS_ENDPOINT_URL_S3": "x",
        "AWS_SKIP_SIGNATURE": "x", "AWS_ROLE_ARN": "x", "AWS_WEB_IDENTITY_TOKEN_FILE": "x",
    }  # fmt: skip
    secret = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "x"}
    other = {"GOOGLE_SERVICE_ACCOUNT_KEY": "x", "AWS_EMPTY": "", "PATH": "x"}
    assert settings_of("s3", public | secret | other) == (sorted(public), sorted(secret))
    assert settings_of("gs", public | other) == ([], ["GOOGLE_SERVICE_ACCOUNT_KEY"])
    assert settings_of("https", public | secret) == ([], [])


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("http://s3.example.com", "plain http to s3.example.com"),
        ("http://8.8.8.8:9000", "plain http to 8.8.8.8"),
        ("http://user:hunter2@127.0.0.1:9000", "must not hold a name or password"),
        ("127.0.0.1:9000", "not a URL of the form https://host"),
        ("ftp://127.0.0.1", "not a URL of the form https://host"),
        ("http://[::1", "not a URL of the form https://host"),
        ("http://127.0.0.1:99999999", "not a URL of the form https://host"),
    ],
)
def test_an_endpoint_that_may_not_be_used_is_refused_before_credentials_are_sent(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, says: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    with pytest.raises(UsageError, match=f"AWS_ENDPOINT_URL .*{says}|AWS_ENDPOINT_URL is {says}") as raised:
        stores.head(object_url("s3://b-1/a.csv"))
    assert "hunter2" not in str(raised.value)
