"""The disks that a power cut may leave, rebuilt from one trace of a run's file operations.

The model is the strictest that POSIX allows: what was written to a file is on the disk once that file was
synced, and a name is in its folder once that folder was synced. Until then each 512-byte sector of each write may
be there or not, and of the changes to a folder any prefix. A truncation that was not synced may have happened or
not. Shared memory of SQLite (``-shm``) does not survive.

The trace comes from strace, with the bytes of every write in it. The oracle's notes are writes of the same trace,
so what had been asked and acknowledged at any instant is known.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECTOR_BYTES = 512
LEDGER = "ledger.jsonl"
TRACED = "openat,creat,pwrite64,write,writev,fdatasync,fsync,rename,ftruncate,unlink"
STRACE = ["-e", f"trace={TRACED}", "-e", "signal=none", "-y", "-xx", "-s", "1000000", "--seccomp-bpf"]

_LINE = re.compile(r"(\d+)\s+(\w+)\((.*)\)\s+= (-?\d+)")
_UNFINISHED = re.compile(r"(\d+)\s+(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"(\d+)\s+<\.\.\. (\w+) resumed>(.*)$")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"^\d+<([^>]*)>")


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of the disk, or one sync."""

    kind: str  # create, write, truncate, sync, rename, unlink
    path: str
    data: bytes = b""
    offset: int = -1  # -1: at the end
    size: int = 0
    target: str = ""


def read_trace(trace: Path, folder: Path) -> list[Operation]:
    """The operations of a trace within a folder, in the order in which they returned; paths are relative to it."""
    waiting: dict[str, str] = {}
    operations: list[Operation] = []
    for line in trace.read_text("ascii").splitlines():
        if match := _UNFINISHED.match(line):
            waiting[match[1]] = match[3]
            continue
        if match := _RESUMED.match(line):
            line = f"{match[1]} {match[2]}({waiting.pop(match[1])}{match[3]}"
        if (match := _LINE.match(line)) and int(match[4]) >= 0:
            operations += _operation(match[2], match[3], int(match[4]), str(folder))
    return operations


def _operation(call: str, arguments: str, result: int, folder: str) -> Iterator[Operation]:
    strings = [bytes.fromhex(text.replace("\\x", "")) for text in _STRING.findall(arguments)]

    def within(path: bytes | str) -> str | None:
        name = path.decode() if isinstance(path, bytes) else path
        if name == folder:
            return "."
        return name[len(folder) + 1 :] if name.startswith(folder + "/") else None

    if call == "openat":
        path = within(strings[0]) if strings else None
        if path is not None and "O_CREAT" in arguments:
            yield Operation("create", path)
        if path is not None and "O_TRUNC" in arguments:
            yield Operation("truncate", path, size=0)
        return
    if call in ("rename", "unlink"):
        path = within(strings[0])
        if path is not None:
            yield Operation(call, path, target=(within(strings[1]) or "") if call == "rename" else "")
        return
    descriptor = _DESCRIPTOR.match(arguments)
    path = within(_plain(descriptor[1])) if descriptor else None
    if path is None or path.endswith(" (deleted)"):
        return
    if call in ("fsync", "fdatasync"):
        yield Operation("sync", path)
    elif call == "ftruncate":
        yield Operation("truncate", path, size=int(arguments.rpartition(",")[2]))
    else:
        offset = int(arguments.rpartition(",")[2]) if call == "pwrite64" else -1
        yield Operation("write", path, data=b"".join(strings)[:result], offset=offset)


def _plain(path: str) -> bytes:
    return bytes.fromhex(path.replace("\\x", "")) if path.startswith("\\x") else path.encode()


@dataclass(slots=True)
class _File:
    """What is surely on the disk, and what may be."""

    durable: bytearray = field(default_factory=bytearray)
    size: int = 0  # as the process sees it
    pending: list[Operation] = field(default_factory=list)


class Disk:
    """The files of one folder while a trace is replayed."""

    def __init__(self) -> None:
        self._files: list[_File] = []
        self._names: dict[str, int] = {}  # as the process sees them
        self._durable_names: dict[str, int] = {}
        self._folder_changes: list[tuple[str, str, int]] = []  # kind, name, file

    def put(self, name: str, content: bytes) -> None:
        """A file that was there, durably, before the trace began."""
        self._names[name] = self._durable_names[name] = len(self._files)
        self._files.append(_File(bytearray(content), len(content)))

    def apply(self, operation: Operation) -> None:
        """The next operation."""
        match operation.kind:
            case "create":
                if operation.path not in self._names:
                    self._names[operation.path] = len(self._files)
                    self._folder_changes.append(("add", operation.path, len(self._files)))
                    self._files.append(_File())
            case "rename":
                number = self._names.pop(operation.path)
                self._names[operation.target] = number
                both = f"{operation.path}\0{operation.target}"
                self._folder_changes.append(("rename", both, number))  # one change: it is never half done
            case "unlink":
                if operation.path in self._names:
                    number = self._names.pop(operation.path)
                    self._folder_changes.append(("drop", operation.path, number))
            case "sync" if operation.path == ".":
                _change(self._durable_names, self._folder_changes)
                self._folder_changes.clear()
            case "sync":
                file = self._file(operation.path)
                for pending in file.pending:
                    _write(file.durable, pending)
                file.pending.clear()
            case _:
                self._change_file(self._file(operation.path), operation)

    def _file(self, path: str) -> _File:
        return self._files[self._names[path]]

    @staticmethod
    def _change_file(file: _File, operation: Operation) -> None:
        if operation.kind == "truncate":
            file.size = operation.size
            file.pending.append(operation)
            return
        offset = file.size if operation.offset < 0 else operation.offset
        file.size = max(file.size, offset + len(operation.data))
        file.pending.append(Operation("write", operation.path, operation.data, offset))

    def image(self, choice: random.Random | None, *, everything: bool = False) -> dict[str, bytes]:
        """A disk that a power cut may leave now.

        Args:
            choice: Decides what of the unsynced is there; ``None`` leaves nothing of it.
            everything: All of the unsynced is there.
        """
        names = dict(self._durable_names)
        changes = self._folder_changes
        if not everything:
            changes = changes[: choice.randint(0, len(changes))] if choice else []
        _change(names, changes)
        found = {
            name: self._content(self._files[number], choice, everything)
            for name, number in names.items()
            if not name.endswith("-shm")
        }
        if LEDGER in self._names:  # the oracle's own disk has power
            found[LEDGER] = self._content(self._files[self._names[LEDGER]], None, everything=True)
        return found

    @staticmethod
    def _content(file: _File, choice: random.Random | None, everything: bool) -> bytes:
        content = bytearray(file.durable)
        if everything:
            for operation in file.pending:
                _write(content, operation)
        elif choice is not None:
            share = choice.choice((0.1, 0.5, 0.9))
            for operation in file.pending:
                for part in [operation] if operation.kind == "truncate" else _sectors(operation):
                    if choice.random() < share:
                        _write(content, part)
        return bytes(content)


def _change(names: dict[str, int], changes: list[tuple[str, str, int]]) -> None:
    for kind, name, number in changes:
        if kind == "add":
            names[name] = number
        elif kind == "drop":
            names.pop(name, None)
        else:
            old, _, new = name.partition("\0")
            names.pop(old, None)
            names[new] = number


def _write(content: bytearray, operation: Operation) -> None:
    if operation.kind == "truncate":
        del content[operation.size :]
        content.extend(bytes(operation.size - len(content)))
        return
    if len(content) < operation.offset:
        content.extend(bytes(operation.offset - len(content)))
    content[operation.offset : operation.offset + len(operation.data)] = operation.data


def _sectors(operation: Operation) -> Iterator[Operation]:
    """A write, cut where the disk's sectors begin."""
    start, end = operation.offset, operation.offset + len(operation.data)
    while start < end:
        stop = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
        piece = operation.data[start - operation.offset : stop - operation.offset]
        yield Operation("write", operation.path, piece, start)
        start = stop
