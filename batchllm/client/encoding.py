"""Decodes the body of a reply, also where its ``Content-Encoding`` is wrong.

Requests offer gzip and deflate. Some gateways send another encoding all the same, label plain text as encoded, or leave
the label out (RFC 9110, 8.4).
"""

import zlib

_GZIP = b"\x1f\x8b"
_NAMES = {"br": "Brotli", "zstd": "Zstandard", "compress": "LZW", "dcb": "Brotli", "dcz": "Zstandard"}
_PLAIN = (b"{", b"[", b"<", b"data:", b"event:", b":")


class Undecodable(ValueError):
    """The encoding is none that was offered."""


class Truncated(ValueError):
    """The body ends before its encoding does."""


class TooLarge(ValueError):
    """The decoded body is larger than it may be."""


def decoded(body: bytes, encoding: str, most: int) -> bytes:
    """Returns a body without its encoding.

    Args:
        body: As it was received.
        encoding: The header ``Content-Encoding``, the last encoding last.
        most: The most bytes that the decoded body may have.

    Raises:
        Undecodable: The encoding was not offered; the message names it.
        Truncated: The body is cut off or damaged.
        TooLarge: It is larger than ``most``.
    """
    for name in reversed([part.strip().lower() for part in encoding.split(",")]):
        if name in ("", "identity") or (body[:6].startswith(_PLAIN) and _is_text(body)):
            continue
        if name in ("gzip", "x-gzip", "deflate"):
            body = _inflated(body, most)
        elif not body.startswith(_GZIP):
            said = f"{name} ({_NAMES[name]})" if name in _NAMES else repr(name[:40])
            raise Undecodable(
                f"the answer came in the encoding {said}, which was not asked for and cannot be read; turn compression "
                "off in the gateway that sends it"
            )
    return _inflated(body, most) if body.startswith(_GZIP) else body


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _inflated(body: bytes, most: int) -> bytes:
    """Decodes gzip of any number of members, zlib, and the bare deflate that some servers send."""
    whole = b""
    while body:
        try:
            part, body = _member(body, most - len(whole), 47)
        except zlib.error as error:
            if whole:  # what follows the last member is padding
                break
            try:
                part, body = _member(body, most, -15)
            except zlib.error:
                raise Truncated(f"the answer is damaged ({error})") from error
        whole += part
    return whole


def _member(body: bytes, most: int, window_bits: int) -> tuple[bytes, bytes]:
    decoder = zlib.decompressobj(window_bits)
    part = decoder.decompress(body, most + 1)
    if len(part) > most:
        raise TooLarge
    if not decoder.eof:
        raise Truncated("the answer was cut off")
    return part, decoder.unused_data
