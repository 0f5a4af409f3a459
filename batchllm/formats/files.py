"""Which input file and which output target a path means; what lies elsewhere than on disk is decided here too."""

from pathlib import Path

from batchllm.formats.compression import COMPRESSIONS
from batchllm.formats.input_file import InputFile, LocalFile
from batchllm.formats.objects import ObjectInput, ObjectTarget
from batchllm.formats.output_file import AtomicFile, OutputTarget, StandardOutput
from batchllm.formats.suffixes import compression_suffix
from batchllm.stores import ObjectPath

_COPIED_BYTES = 1 << 20


def input_file(path: Path, name: str) -> InputFile:
    """Returns the input at a path, its bytes as they are.

    Args:
        path: The path.
        name: What messages call it.
    """
    return ObjectInput(path, name) if isinstance(path, ObjectPath) else LocalFile(path, name)


def put_file(source: Path, path: Path) -> None:
    """Puts a copy of a file on disk in place, whole or not at all.

    Args:
        source: The file, whose bytes are taken as they are.
        path: Where the copy goes.

    Raises:
        CannotWrite, StorageFailure: It cannot be written.
    """
    with (
        ObjectTarget(path) if isinstance(path, ObjectPath) else AtomicFile(path) as target,
        source.open("rb") as file,
    ):
        while data := file.read(_COPIED_BYTES):
            target.write(data)
        target.finish()
        target.commit()


def output_target(path: Path | None, *, tidies: bool = True) -> OutputTarget:
    """Returns the target of an output, which is compressed where its suffix says so.

    Args:
        path: The path; ``None`` is standard output.
        tidies: See ``AtomicFile``.
    """
    if path is None:
        return StandardOutput()
    compression = COMPRESSIONS.get(compression_suffix(path))
    compressor = compression and compression.compressor()
    if isinstance(path, ObjectPath):
        return ObjectTarget(path, compressor)
    return AtomicFile(path, compressor, tidies=tidies)
