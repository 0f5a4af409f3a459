"""What the suffixes of a file's name say: the format, and before it the compression, as in ``reviews.csv.gz``."""

from pathlib import Path

COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
"""Suffixes of compressed files."""


def compression_suffix(path: Path) -> str:
    """Returns the suffix of a compressed file in lower case, ``""`` for any other file."""
    suffix = path.suffix.lower()
    return suffix if suffix in COMPRESSED else ""


def uncompressed_name(path: Path) -> Path:
    """Returns the path without the suffix of a compression: ``reviews.csv`` for ``reviews.csv.gz``."""
    return path.with_suffix("") if compression_suffix(path) else path


def format_suffix(path: Path) -> str:
    """Returns the suffix that tells the format, in lower case: ``.csv`` for ``reviews.CSV.gz``."""
    return uncompressed_name(path).suffix.lower()


def stem_of(path: Path) -> str:
    """Returns the name without the suffixes of format and compression: ``reviews`` for ``reviews.csv.gz``."""
    return uncompressed_name(path).stem


def suffixes_of(path: Path) -> str:
    """Returns the suffixes of format and compression as they are written: ``.csv.gz``, or ``""``."""
    return path.name[len(stem_of(path)) :]


def labelled(path: Path, label: str) -> Path:
    """Returns the path of a file beside another one: ``reviews.LABEL.csv.gz`` for ``reviews.csv.gz``."""
    return path.with_name(f"{stem_of(path)}.{label}{suffixes_of(path)}")
