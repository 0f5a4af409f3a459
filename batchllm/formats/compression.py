"""Compressed files: unpacked while they are read, and packed while they are written.

An input is compressed where its content begins like that of a compressed file; its suffix must agree, unless the user
names the format. Offsets, size and hash of a compressed input are those of its content, so that a file that is packed
again is the same input. It may have several members or frames, as ``cat``, pigz and bgzip write them, and zeros behind
the last one. What is cut off or damaged, or followed by anything else, is an ``InputError``.

The bytes of an output depend on its content alone: a gzip header has neither time nor name.
"""

import bz2
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchllm.errors import InputError
from batchllm.formats.input_file import CHUNK_BYTES, InputFile
from batchllm.formats.suffixes import compression_suffix

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_ERRORS = (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, ValueError, EOFError)


class _GzipDecompressor:
    """``zlib``'s decompressor with the interface that those of the other modules have."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        found = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = len(found) < max_length
        return found


@dataclass(frozen=True, slots=True)
class Compression:
    """A way to compress.

    Attributes:
        name: What messages call it.
        begins_with: How compressed content begins.
        decompressor, compressor: Make an object for one member.
    """

    name: str
    begins_with: re.Pattern[bytes]
    decompressor: Callable[[], Any]
    compressor: Callable[[], Any]


COMPRESSIONS = {
    ".gz": Compression(
        "gzip", re.compile(rb"\x1f\x8b"), _GzipDecompressor, lambda: zlib.compressobj(wbits=31)
    ),
    ".zst": Compression(
        "zstd",
        re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),  # a frame, or one to skip
        zstd.ZstdDecompressor,
        lambda: zstd.ZstdCompressor(options={zstd.CompressionParameter.checksum_flag: 1}),
    ),
    ".bz2": Compression(
        "bzip2",
        re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),  # a first block, or the end of an empty stream
        bz2.BZ2Decompressor,
        bz2.BZ2Compressor,
    ),
    ".xz": Compression("xz", re.compile(rb"\xfd7zXZ\0"), lzma.LZMADecompressor, lzma.LZMACompressor),
}
"""The compressions by their suffixes."""


class CompressedFile(InputFile):
    """An input whose content is that of another one, unpacked.

    Args:
        packed: The compressed file.
        compression: How it is compressed.
    """

    def __init__(self, packed: InputFile, compression: Compression) -> None:
        super().__init__(packed.path, packed.name)
        self._packed = packed
        self._compression = compression

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """Yields the unpacked content; see ``InputFile``. What is before ``start`` is unpacked too."""
        for chunk in self._unpacked():
            if len(chunk) > start:
                yield chunk[start:] if start else chunk
                start = 0
            else:
                start -= len(chunk)

    def _unpacked(self) -> Iterator[bytes]:
        member = self._compression.decompressor()
        for data in self._packed.chunks():
            while True:
                if member.eof and (data := data.lstrip(b"\0")):
                    member = self._compression.decompressor()
                if not data and (member.eof or member.needs_input):
                    break
                try:
                    found = member.decompress(data, CHUNK_BYTES)
                except _ERRORS as error:
                    if "too much memory" in str(error):  # zstd --long
                        reason = "needs a window of more than 128 MiB to unpack; pack it again without --long"
                        raise InputError(self.name, reason) from error
                    if "Dictionary mismatch" in str(error):
                        reason = (
                            "was compressed with a dictionary; unpack it first (zstd -d -D DICTIONARY FILE)"
                        )
                        raise InputError(self.name, reason) from error
                    raise self._error(f"is damaged, or followed by something else ({error})") from error
                data = member.unused_data if member.eof else b""
                if found:
                    yield found
        if not member.eof:
            raise self._error("is cut off")

    def check_whole(self) -> None:
        """Unpacks everything, since the checksum is at the end; see ``InputFile``."""
        for _ in self._unpacked():
            pass

    def _error(self, what: str) -> InputError:
        reason = f"its {self._compression.name} content {what}; copy or download the file again"
        return InputError(self.name, reason)


def unpacked(file: InputFile, *, suffix_decides: bool) -> InputFile:
    """Returns an input with its content unpacked, if it is compressed.

    Args:
        file: The input.
        suffix_decides: The suffix of its name has to say so too.

    Raises:
        InputError: It cannot be read, or its suffix says something else than its content.
    """
    head = file.ends().head
    suffix = compression_suffix(file.path)
    found = next(
        (name for name, compression in COMPRESSIONS.items() if compression.begins_with.match(head)), ""
    )
    if suffix_decides and suffix != found and head:
        raise InputError(file.name, _disagreement(file.path, suffix, found))
    return CompressedFile(file, COMPRESSIONS[found]) if found else file


def _disagreement(path: Path, suffix: str, found: str) -> str:
    if not found:
        what = f"is not compressed with {COMPRESSIONS[suffix].name}"
        return f"{what}; name it {path.stem}, or name its format with --input-format"
    name = f"{path.stem if suffix else path.name}{found}"
    what = f"is compressed with {COMPRESSIONS[found].name}"
    return f"{what}; name it {name}, or name the format of its content with --input-format"
