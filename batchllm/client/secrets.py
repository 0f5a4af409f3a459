"""Hides keys and passwords in what an endpoint or a proxy sends back, before anything stores or shows it.

Servers echo headers in their errors: whole, in part, or encoded. So every reply is searched for the secrets that went
out with its request, each as it is and as JSON, URLs, HTML, base64 and hexadecimal write it. In an error also a part of
at least eight characters of a long secret is hidden; in an answer, which was paid, only a whole one of at least twelve.
"""

import base64
import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from batchllm.records import Failure, Response

HIDDEN = b"***"
_PART = 8
"""Characters of a part that is hidden."""
_WHOLE = 12
"""Characters of a secret that is hidden in part, and in answers; shorter ones are words such as ``EMPTY``."""
_SHORTEST = 4
_SECRET_NAME = re.compile(r"auth|key|token|secret|cookie|password|credential|signature", re.IGNORECASE)
_SCHEME = re.compile(r"^(?:bearer|basic|token|apikey)\s+", re.IGNORECASE)


def is_secret_header(name: str, value: str = "") -> bool:
    """Returns whether a header holds a secret, by its name or by the scheme of its value."""
    return bool(_SECRET_NAME.search(name) or _SCHEME.match(value))


def secrets_in(headers: Mapping[str, str]) -> set[str]:
    """Returns the secrets of headers, without the scheme before them."""
    return {_SCHEME.sub("", value) for name, value in headers.items() if is_secret_header(name, value)}


class Mask:
    """Hides a set of secrets in replies.

    Args:
        secrets: Keys and passwords as they are.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        known = {secret for secret in secrets if len(secret) >= _SHORTEST}
        long = {secret for secret in known if len(secret) >= _WHOLE}
        self._whole = tuple(
            sorted({form for secret in long for form in _forms(secret)}, key=len, reverse=True)
        )
        self._parts = frozenset(part for form in self._whole for part in _parts(form))
        words = sorted({re.escape(form) for secret in known - long for form in _forms(secret)}, key=len)
        self._words = re.compile(rb"(?<!\w)(?:" + b"|".join(reversed(words)) + rb")(?!\w)") if words else None

    def reply(self, outcome: Response | Failure) -> Response | Failure:
        """Returns an outcome without the secrets."""
        if isinstance(outcome, Failure):
            partial, message = self.error(outcome.partial), self.text(outcome.message)
            return outcome._replace(partial=partial, message=message)
        if outcome.status == 200:
            body = outcome.body
            for form in self._whole:
                if form in body:
                    body = body.replace(form, HIDDEN)
            return outcome if body is outcome.body else outcome._replace(body=body)
        headers = {name: self.text(value) for name, value in outcome.headers.items()}
        return outcome._replace(body=self.error(outcome.body), headers=headers)

    def text(self, text: str) -> str:
        """Returns an error's text without the secrets."""
        raw = text.encode("utf-8", "surrogateescape" if not _has_others(text) else "surrogatepass")
        hidden = self.error(raw)
        return text if hidden == raw else hidden.decode("utf-8", "replace")

    def value(self, value: Any) -> Any:
        """Returns a value of an error's JSON with the texts in it without the secrets."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.value(inner) for key, inner in value.items()}
        return [self.value(inner) for inner in value] if isinstance(value, list) else value

    def error(self, body: bytes) -> bytes:
        """Returns an error's body without the secrets, and without long parts of them."""
        if self._words is not None:
            body = self._words.sub(HIDDEN, body)
        if not self._parts:
            return body
        parts, pieces, end, shown = self._parts, [], 0, 0
        for first in range(len(body) - _PART + 1):
            if body[first : first + _PART] in parts:
                if first >= end:
                    pieces += [body[shown:first], HIDDEN]
                shown = end = first + _PART
        return b"".join([*pieces, body[shown:]]) if pieces else body


def custom_headers() -> dict[str, str]:
    """Returns the headers of ``OPENAI_CUSTOM_HEADERS``, read as the SDK reads them."""
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def _forms(secret: str) -> Iterator[bytes]:
    """Yields a secret as it is, and as others write it."""
    raw = secret.encode("utf-8", "surrogatepass")
    yield raw
    in_json = json.dumps(secret)[1:-1]
    yield in_json.encode()
    yield in_json.replace("/", "\\/").encode()
    yield "".join(f"\\u{ord(sign):04x}" for sign in secret if ord(sign) < 0x10000).encode()
    for safe in ("", "/"):
        quoted = quote(raw, safe=safe)
        yield quoted.encode()
        yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), quoted).encode()
    yield html.escape(secret).encode()
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    if len(raw) >= _WHOLE:  # what stands before a secret shifts its base64 by 0, 1 or 2 bytes
        for before in range(3):
            text = base64.b64encode(bytes(before) + raw).rstrip(b"=")
            inner = text[(0, 2, 3)[before] : len(text) - (1 if (before + len(raw)) % 3 else 0)]
            yield inner
            yield inner.translate(bytes.maketrans(b"+/", b"-_"))


def _parts(form: bytes) -> Iterator[bytes]:
    for first in range(len(form) - _PART + 1):
        part = form[first : first + _PART]
        if b"\\u" not in part and len(set(part)) > 2:
            yield part


def _has_others(text: str) -> bool:
    """Whether the text has surrogates that do not stand for single bytes."""
    return any("\ud800" <= sign <= "\udfff" and not "\udc80" <= sign <= "\udcff" for sign in text)
