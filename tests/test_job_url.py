import pytest

from batchllm.errors import UsageError
from batchllm.job.url import is_local, is_loopback, normalise


@pytest.mark.parametrize(
    ("given", "root"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
        (" https://API.OpenAI.com:443/v1 ", "https://api.openai.com/v1"),
        ("https://api.openai.com/v1/chat/completions", "https://api.openai.com/v1"),
        ("https://api.openai.com/v1/chat/completions/", "https://api.openai.com/v1"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost:80/v1", "http://localhost/v1"),
        ("http://[::1]:8080/v1", "http://[::1]:8080/v1"),
        ("https://gateway.example/team/openai/v1/models", "https://gateway.example/team/openai/v1"),
    ],
)
def test_what_people_paste_becomes_the_root_of_the_api(given: str, root: str) -> None:
    assert normalise(given, "--base-url") == root
    assert normalise(root, "--base-url") == root


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("api.openai.com/v1", r"did you mean https://api\.openai\.com/v1\?"),
        ("localhost:8000/v1", r"did you mean http://localhost:8000/v1\?"),
        ("192.168.1.5:8000", r"did you mean http://192"),
        ("ftp://host/v1", "of the form"),
        ("https://", "of the form"),
        ("https:///v1", "of the form"),
        ("https://host:port/v1", "not a URL"),
        ("https://[::1/v1", "not a URL"),
        ("https://a b/v1", "of the form"),
        ("", "must begin with https"),
        ("https://me:secret@host/v1", "must not hold a name or password"),
        ("https://host/v1/chat/completions?api-version=1", r"query or fragment.*https://host/v1$"),
        ("https://host/v1#x", "query or fragment"),
    ],
)
def test_what_is_no_root_of_an_api_is_refused(given: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        normalise(given, "--base-url")
    assert str(caught.value).startswith("--base-url")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    ["localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "10.1.2.3", "172.16.0.1", "172.31.255.255",
     "192.168.0.1", "169.254.1.1", "fd00::1", "fe80::1", "fe80::1%eth0", "::ffff:10.0.0.1", "vllm", "nas.local",
     "llm.corp.internal", "box.home.arpa"],
)  # fmt: skip
def test_plain_http_stays_at_home(host: str) -> None:
    assert is_local(host)


@pytest.mark.parametrize(
    "host",
    ["api.openai.com", "8.8.8.8", "172.32.0.1", "192.169.0.1", "11.0.0.1", "2001:db8::1", "::ffff:8.8.8.8",
     "localhost.example.com", "127.0.0.1.example.com", "134744072", "0x08080808", "local.example", "mylocal.com"],
)  # fmt: skip
def test_plain_http_does_not_leave_the_house(host: str) -> None:
    assert not is_local(host)


def test_loopback_is_this_machine_only() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "::1", "x.localhost", "::ffff:127.0.0.1")))
    assert not any(map(is_loopback, ("10.0.0.1", "vllm", "fe80::1", "example.com")))
