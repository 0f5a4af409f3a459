"""The way to an endpoint: through which proxy, and whose certificates are trusted.

Every kind of request (chat, models, files, batches) takes this one way, so that what ``check`` finds holds for a run.
The variables are those of curl and requests: ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` in lower
or upper case, the lower first; ``SSL_CERT_FILE``, ``SSL_CERT_DIR``, ``REQUESTS_CA_BUNDLE`` and ``CURL_CA_BUNDLE``.
"""

import base64
import ipaddress
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from batchllm.errors import UsageError
from batchllm.hosts import DEFAULT_PORTS, is_loopback

_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that the environment names.

    Attributes:
        url: Its URL, with name and password where it needs them. Never shown.
        variable: The environment variable that names it.
    """

    url: str = field(repr=False)
    variable: str

    def __str__(self) -> str:
        """Returns the proxy for a message: without name and password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{'***@' if '@' in parts.netloc else ''}{parts.netloc.rpartition('@')[2]}"

    @property
    def secrets(self) -> set[str]:
        """Returns the password, as it is and as it is written, and what is sent of it; none where it has none."""
        parts = urlsplit(self.url)
        if not parts.password:
            return set()
        password = unquote(parts.password)
        sent = base64.b64encode(f"{unquote(parts.username or '')}:{password}".encode()).decode()
        return {password, parts.password, sent}


def proxy_of(base_url: str) -> Proxy | None:
    """Returns the proxy that the environment names for a URL; loopback is never proxied.

    Raises:
        UsageError: The variable holds no proxy that the transport can speak to; the message hides its password.
    """
    parts = urlsplit(base_url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    if is_loopback(host):
        return None
    named = _variable(f"{parts.scheme}_proxy") or _variable("all_proxy")
    exceptions = _variable("no_proxy")
    if named is None or (exceptions is not None and _is_exception(host, port, exceptions[1])):
        return None
    variable, url = named
    return Proxy(_checked_proxy(url if "://" in url else f"http://{url}", variable), variable)


def _variable(name: str) -> tuple[str, str] | None:
    """The name and the value of a variable in lower or upper case; ``None`` where neither is set."""
    for spelled in (name, name.upper()):
        # A CGI server sets HTTP_PROXY from a header of the client (https://httpoxy.org).
        if spelled == "HTTP_PROXY" and "REQUEST_METHOD" in os.environ:
            continue
        if value := os.environ.get(spelled, "").strip():
            return spelled, value
    return None


def _checked_proxy(url: str, variable: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not host or any(sign.isspace() for sign in url):
        raise UsageError(f"{variable} is not the URL of a proxy: it has the form http://host:port")
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS:
        kind = "a SOCKS proxy" if scheme.startswith("socks") else f"a proxy that speaks {scheme}"
        raise UsageError(
            f"{variable} names {kind}, which batchllm cannot use: set HTTPS_PROXY to an http:// proxy, or name the "
            "endpoint in NO_PROXY"
        )
    return url


def _is_exception(host: str, port: int, exceptions: str) -> bool:
    """Whether ``NO_PROXY`` lists a host: by name, domain, address, network (``10.0.0.0/8``), with a port or ``*``."""
    for entry in exceptions.replace(",", " ").lower().split():
        name, _, its_port = (
            entry.rpartition(":") if entry.count(":") == 1 or "]:" in entry else (entry, "", "")
        )
        name = name.strip("[]").removeprefix("*").lstrip(".")
        if its_port and its_port != str(port):
            continue
        if entry == "*" or (name and (host == name or host.endswith(f".{name}"))) or _in_network(host, name):
            return True
    return False


def _in_network(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def named_certificates() -> dict[str, Path]:
    """Returns the variables that say which certificates are trusted, with what they name; mostly none."""
    named = {name: os.environ.get(name, "") for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    if not any(named.values()):
        named = {name: os.environ.get(name, "") for name in _BUNDLES}
    found = {name: Path(value) for name, value in named.items() if value}
    return dict(list(found.items())[:1]) if found.keys() & set(_BUNDLES) else found


def check_certificates() -> ssl.SSLContext | None:
    """Returns the context of the certificates that the environment names; ``None`` where it names none.

    Raises:
        UsageError: They cannot be read; the message names the variable.
    """
    named = named_certificates()
    if not named:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for variable, path in named.items():
        folder = path.is_dir()
        try:
            if not folder:
                with path.open("rb"):
                    pass
            context.load_verify_locations(
                cafile=None if folder else str(path), capath=str(path) if folder else None
            )
        except ssl.SSLError:
            raise UsageError(
                f"{variable} names {path}, which holds no certificates in PEM form; correct or unset it"
            ) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(
                f"{variable} names {path}, which cannot be read ({reason}); correct or unset it"
            ) from None
    return context


def ssl_context() -> ssl.SSLContext:
    """Returns the TLS settings of every request: the environment's certificates, else the system's.

    Raises:
        UsageError: The environment names certificates that cannot be read.
    """
    import httpx2

    return check_certificates() or httpx2.create_ssl_context(trust_env=False)


def check_route(base_url: str) -> None:
    """Finds what is wrong with the environment's proxy and certificates before anything is sent.

    Raises:
        UsageError: The message names the variable.
    """
    proxy = proxy_of(base_url)
    if base_url.startswith("https") or (proxy is not None and proxy.url.lower().startswith("https")):
        check_certificates()
