"""The URL of an object as a path, for everything that takes a path and does not read it."""

import re
from collections.abc import Generator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path, PosixPath
from typing import Any

from batchllm.stores import objects
from batchllm.stores.url import ObjectUrl, is_url, object_url

_WILD = re.compile(r"[*?[]")


class ObjectPath(PosixPath):
    """The URL of an object where a path of a file is expected.

    Names, comparison, ``exists`` and ``unlink`` are those of the object; its text is the URL. What opens files by their
    path does not find it: inputs and outputs are opened by ``formats``, which tells the two apart.

    Args:
        url: The URL, or its text.

    Attributes:
        url: The URL.
    """

    url: ObjectUrl

    def __new__(cls, url: "ObjectUrl | str") -> "ObjectPath":
        """Makes the path; ``pathlib`` of Python 3.11 parses here, later ones in ``__init__``."""
        found = url if isinstance(url, ObjectUrl) else object_url(url)
        self = super().__new__(cls, str(found))
        self.url = found
        return self

    def __init__(self, url: "ObjectUrl | str") -> None:
        # Python 3.12 and later parse what they are given here; 3.11 has no __init__ of its own.
        if PosixPath.__init__ is not object.__init__:
            super().__init__(str(self.url))  # type: ignore[call-arg]

    def __str__(self) -> str:
        return str(self.url)

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    def __fspath__(self) -> str:
        return str(self.url)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __reduce__(self) -> Any:
        return ObjectPath, (self.url,)

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.url.name

    @property
    def parent(self) -> "ObjectPath":
        """The prefix that the object is below."""
        return ObjectPath(self.url.with_name(""))

    def with_name(self, name: str) -> "ObjectPath":
        """Returns the path of another object beside this one."""
        return ObjectPath(self.url.with_name(name))

    def with_suffix(self, suffix: str) -> "ObjectPath":
        """Returns the path with another suffix."""
        return self.with_name(self.stem + suffix)

    def __truediv__(self, name: Any) -> "ObjectPath":
        return ObjectPath(self.url / str(name))

    def absolute(self) -> "ObjectPath":
        """Returns the path itself."""
        return self

    def resolve(self, strict: bool = False) -> "ObjectPath":
        """Returns the path itself."""
        return self

    def expanduser(self) -> "ObjectPath":
        """Returns the path itself."""
        return self

    def exists(self, **_: Any) -> bool:
        """Whether there is such an object; asks the store. Every prefix exists."""
        return self.url.is_prefix or objects.head(self.url) is not None

    def is_file(self, **_: Any) -> bool:
        """Whether there is such an object; asks the store."""
        return not self.url.is_prefix and self.exists()

    def is_dir(self, **_: Any) -> bool:
        """Whether it stands for all objects below it."""
        return self.url.is_prefix

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: every prefix exists."""

    def iterdir(self) -> "Generator[ObjectPath, None, None]":
        """Yields the objects below this prefix that have no further slash, in the order of their keys."""
        for info in objects.listed(self.url, deep=False):
            yield ObjectPath(info.url)

    @property
    def is_pattern(self) -> bool:
        """Whether its key has a wildcard, and so may mean other objects."""
        return self.url.is_writable and _WILD.search(self.url.key) is not None

    def matches(self) -> "list[ObjectPath]":
        """Returns the objects that this pattern means, in the order of their keys.

        ``*``, ``?`` and ``[…]`` stand for characters of one part, ``**`` for any number of parts, as in ``glob``; names
        that begin with a dot are matched by a dot alone. An object whose key is the pattern itself is meant by it.
        """
        if self.exists():
            return [self]
        parts = self.url.key.split("/")
        fixed = next(place for place, part in enumerate(parts) if _WILD.search(part))
        below = replace(self.url, key="".join(f"{part}/" for part in parts[:fixed]))
        deep = fixed < len(parts) - 1 or "**" in parts
        return [
            ObjectPath(info.url)
            for info in objects.listed(below, deep=deep)
            if _match(info.url.key.split("/"), parts)
        ]

    def is_absolute(self) -> bool:
        """A URL does not depend on the current folder."""
        return True

    def unlink(self, missing_ok: bool = True) -> None:
        """Removes the object."""
        objects.delete(self.url)


def _match(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not parts
    first, *others = patterns
    if first == "**" and _match(parts, others):
        return True
    if not parts or (parts[0].startswith(".") and not first.startswith(".")):
        return False
    return (
        _match(parts[1:], patterns)
        if first == "**"
        else fnmatchcase(parts[0], first) and _match(parts[1:], others)
    )


def located(text: object) -> Path:
    """Returns what a text of a user names: a path on disk, or an ``ObjectPath`` for a URL.

    Raises:
        UsageError: It is a URL that cannot be read.
    """
    if isinstance(text, ObjectPath):
        return text
    return ObjectPath(str(text)) if is_url(text) else Path(str(text))


def beside_on_disk(path: Path, name: str) -> Path:
    """Returns the path of a file beside another one, or in the current folder where that is no file on disk."""
    return Path(name) if isinstance(path, ObjectPath) else path.with_name(name)
