"""Every kind of request takes the same way through proxy and TLS, and what is wrong with it is said at once."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.client import Client, check_route, proxy_of
from batchllm.client.batches import CallFailed
from batchllm.errors import JobError, UsageError
from batchllm.records import ChatRequest, Endpoint, Failure, FailureKind, Paid, Response
from tests import network
from tests.network import HOST

REQUEST = ChatRequest(0, b"k" * 16, b"{}", "m", 0, None)
OPENAI = "https://api.openai.com/v1"
PROXY = "http://proxy:3128"


def at(url: str) -> Endpoint:
    return Endpoint(preset="custom", base_url=url, model="m", api_key="sk-0123456789abcdef")


def sent(url: str) -> Response | Failure:
    async def whole() -> Response | Failure:
        async with Client(at(url), timeout_s=5) as client:
            return await client.send(REQUEST)

    return asyncio.run(whole())


def every_call(url: str) -> dict[str, str]:
    """What each kind of request ends with: ``ok``, or its words."""

    async def chat(client: Client) -> str:
        outcome = await client.send(REQUEST)
        return outcome.message if isinstance(outcome, Failure) else f"{outcome.status}".replace("200", "ok")

    calls: dict[str, Callable[[Client], Any]] = {
        "models": lambda client: client.models(),
        "files": lambda client: client.batches.has_file("f"),
        "batches": lambda client: client.batches.create("f", endpoint="/v1", window="24h", name="n"),
    }

    async def whole() -> dict[str, str]:
        async with Client(at(url), timeout_s=5) as client:
            ended = {"chat": await chat(client)}
            for name, call in calls.items():
                try:
                    await call(client)
                    ended[name] = "ok"
                except (JobError, CallFailed) as error:
                    ended[name] = str(error)
            return ended

    return asyncio.run(whole())


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, OPENAI, None),
        ({"HTTPS_PROXY": PROXY}, OPENAI, PROXY),
        ({"https_proxy": PROXY}, OPENAI, PROXY),
        ({"https_proxy": PROXY, "HTTPS_PROXY": "http://other:1"}, OPENAI, PROXY),
        ({"HTTP_PROXY": PROXY}, OPENAI, None),
        ({"HTTP_PROXY": PROXY}, "http://box/v1", PROXY),
        ({"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, "http://box/v1", None),
        ({"ALL_PROXY": "proxy:3128"}, OPENAI, PROXY),
        ({"all_proxy": PROXY, "https_proxy": "http://p:1"}, OPENAI, "http://p:1"),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "openai.com"}, OPENAI, None),
        ({"HTTPS_PROXY": PROXY, "no_proxy": ".openai.com"}, OPENAI, None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "*.openai.com, other"}, OPENAI, None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, OPENAI, None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "api.openai.com:443"}, OPENAI, None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "api.openai.com:8443"}, OPENAI, PROXY),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "penai.com"}, OPENAI, PROXY),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}, "https://10.1.2.3/v1", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}, "https://11.1.2.3/v1", PROXY),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "[fd00::1]:443"}, "https://[fd00::1]/v1", None),
        ({"HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY}, "http://127.0.0.1:8000/v1", None),
        ({"ALL_PROXY": PROXY}, "http://localhost:8000/v1", None),
        ({"ALL_PROXY": "socks5://proxy:1080"}, "http://[::1]:8000/v1", None),
    ],
)
def test_one_proxy_is_chosen_by_the_usual_variables_and_loopback_has_none(
    environment: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = proxy_of(url)
    assert (found and found.url) == proxy


@pytest.mark.parametrize("scheme", ["socks4", "socks5", "socks5h", "SOCKS5"])
def test_a_socks_proxy_is_refused_with_the_way_out(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://me:hunter2secret@proxy:1080")
    with pytest.raises(UsageError, match="ALL_PROXY names a SOCKS proxy.*HTTPS_PROXY") as refused:
        proxy_of(OPENAI)
    assert "hunter2secret" not in str(refused.value)


@given(value=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1))
def test_any_value_of_a_proxy_variable_is_used_or_refused_in_a_sentence(value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTPS_PROXY", value)
        patch.setenv("NO_PROXY", value[::-1])
        try:
            proxy_of(OPENAI)
        except UsageError as refused:
            assert str(refused).startswith("HTTPS_PROXY")


def test_every_kind_of_request_goes_through_the_proxy_with_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, context = network.authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", path)
    with network.endpoint(context) as there, network.proxy("p@ss word") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%40ss%20word@127.0.0.1:{proxy.port}")
        assert set(every_call(f"https://{HOST}:{there.port}/v1").values()) == {"ok"}
        assert all(head.startswith("CONNECT") for head in proxy.heads)
        assert not any("proxy-authorization" in head.lower() for head in there.heads)


def test_plain_http_goes_through_the_proxy_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with network.endpoint() as there, network.proxy("word") as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:word@127.0.0.1:{proxy.port}")
        assert set(every_call(f"http://{HOST}:{there.port}/v1").values()) == {"ok"}
        assert len(proxy.heads) >= 2


def test_no_kind_of_request_asks_a_proxy_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    with network.endpoint() as there:
        assert set(every_call(f"http://127.0.0.1:{there.port}/v1").values()) == {"ok"}


def test_a_proxy_that_wants_a_password_is_said_alike_by_every_request_and_no_password_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, context = network.authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", path)
    with network.endpoint(context) as there, network.proxy("right") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:hunter2secret@127.0.0.1:{proxy.port}")
        ended = every_call(f"https://{HOST}:{there.port}/v1")
    for words in ended.values():
        assert f"the proxy http://***@127.0.0.1:{proxy.port} (from HTTPS_PROXY)" in words
        assert "407" in words and "name and password" in words
        assert "hunter2secret" not in words and "aHVudGVyMnNlY3JldA" not in words


@pytest.mark.parametrize(("status", "kind"), [(403, FailureKind.PROXY), (502, FailureKind.CONNECT)])
def test_a_proxy_that_does_not_connect_is_named(
    status: int, kind: FailureKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    with network.proxy(refuses=status) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        failed = sent(OPENAI)
        assert isinstance(failed, Failure)
        assert (failed.kind, failed.paid) == (kind, Paid.NO)
        assert failed.message.endswith(f"does not connect to api.openai.com:443 ({status})")


def test_a_dead_proxy_is_said_alike_by_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter2secret@127.0.0.1:9")
    words = every_call(OPENAI).values()
    assert all(
        "no connection to the proxy http://***@127.0.0.1:9 (from HTTPS_PROXY)" in each for each in words
    )
    assert not any("hunter2" in each for each in words)


def test_a_certificate_that_is_not_trusted_names_the_variables_in_every_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, context = network.authority(tmp_path)
    (tmp_path / "other").mkdir()
    other, _ = network.authority(tmp_path / "other")
    with network.endpoint(context) as there:
        monkeypatch.setenv("HTTPS_PROXY", "")
        for variable, words in (
            (None, "name its certificates in SSL_CERT_FILE"),
            ("SSL_CERT_FILE", f"SSL_CERT_FILE ({other})"),
            ("REQUESTS_CA_BUNDLE", f"REQUESTS_CA_BUNDLE ({other})"),
        ):
            with pytest.MonkeyPatch.context() as patch:
                if variable:
                    patch.setenv(variable, other)
                ended = every_call(f"https://127.0.0.1:{there.port}/v1")
            assert all("is not valid" in each and words in each for each in ended.values()), ended
        assert sent(f"https://127.0.0.1:{there.port}/v1").kind is FailureKind.TLS  # type: ignore[union-attr]


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_come_from_the_variables_of_openssl_requests_and_curl(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, context = network.authority(tmp_path)
    monkeypatch.setenv(variable, path)
    with network.endpoint(context) as there:
        assert set(every_call(f"https://127.0.0.1:{there.port}/v1").values()) == {"ok"}


def test_a_certificate_of_another_host_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, context = network.authority(tmp_path, names=("other.test",))
    monkeypatch.setenv("SSL_CERT_FILE", path)
    with network.endpoint(context) as there:
        failed = sent(f"https://127.0.0.1:{there.port}/v1")
    assert isinstance(failed, Failure)
    assert "not valid for '127.0.0.1'" in failed.message


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\0\xff" * 50])
def test_certificates_that_cannot_be_read_are_a_sentence_that_names_the_variable(
    variable: str, content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(variable, str(path))
    with pytest.raises(UsageError, match=f"^{variable} names .*ca.pem"):
        check_route(OPENAI)
    check_route("http://127.0.0.1:1/v1")


async def refuse_noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What nginx and uvicorn do with bytes that are no HTTP."""
    await reader.read(1)
    writer.write(network.reply(b"Invalid HTTP request received.", "400 Bad Request"))
    await writer.drain()
    writer.close()


def test_https_to_a_plain_port_and_http_to_a_tls_port_say_so_in_every_request(tmp_path: Path) -> None:
    _, context = network.authority(tmp_path)
    with network.listening(refuse_noise) as plain, network.endpoint(context) as secure:
        https = every_call(f"https://127.0.0.1:{plain}/v1")
        failed = sent(f"http://127.0.0.1:{secure.port}/v1")
    assert all(f"127.0.0.1:{plain} does not speak TLS" in words for words in https.values()), https
    assert all(f"perhaps http://127.0.0.1:{plain}/v1" in words for words in https.values()), https
    assert isinstance(failed, Failure)
    assert (failed.kind, failed.paid) == (FailureKind.TLS, Paid.NO)
    assert (
        f"speaks TLS, not plain http: the URL is probably https://127.0.0.1:{secure.port}/v1"
        in failed.message
    )


def test_a_server_that_answers_plain_http_with_a_tls_alert_is_seen(tmp_path: Path) -> None:
    async def alert(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await network.read_head(reader)
        writer.write(b"\x15\x03\x03\x00\x02\x02\x16")
        await writer.drain()
        writer.close()

    with network.listening(alert) as port:
        failed = sent(f"http://127.0.0.1:{port}/v1")
    assert isinstance(failed, Failure)
    assert failed.kind is FailureKind.TLS


def test_a_server_that_only_closes_is_no_tls_server() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await network.read_head(reader)
        writer.close()

    with network.listening(close) as port:
        failed = sent(f"http://127.0.0.1:{port}/v1")
    assert isinstance(failed, Failure)
    assert (failed.kind, failed.paid) == (FailureKind.RESET, Paid.MAYBE)


def test_a_tls_server_that_wants_a_client_certificate_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, context = network.authority(tmp_path)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    monkeypatch.setenv("SSL_CERT_FILE", path)
    with network.endpoint(context) as there:
        failed = sent(f"https://127.0.0.1:{there.port}/v1")
    assert isinstance(failed, Failure)
    assert failed.paid is Paid.NO
    assert f"127.0.0.1:{there.port}" in failed.message


def test_an_unknown_host_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    words = every_call("https://nosuch.example/v1")
    assert all("the host name nosuch.example cannot be resolved" in each for each in words.values()), words
    failed = sent("https://nosuch.example/v1")
    assert isinstance(failed, Failure)
    assert failed.kind is FailureKind.UNKNOWN_HOST
