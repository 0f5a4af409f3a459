"""Which input file and which output target a path means; what lies elsewhere than on disk is decided here too."""

from pathlib import Path

from batchllm.formats.compression import COMPRESSIONS, CompressedTarget
from batchllm.formats.input_file import InputFile, LocalFile
from batchllm.formats.objects import ObjectInput, ObjectTarget
from batchllm.formats.output_file import AtomicFile, OutputTarget, StandardOutput
from batchllm.formats.suffixes import compression_suffix
from batchllm.stores import ObjectPath


def input_file(path: Path, name: str) -> InputFile:
    """Returns the input at a path, its bytes as they are.

    Args:
        path: The path.
        name: What messages call it.
    """
    return ObjectInput(path, name) if isinstance(path, ObjectPath) else LocalFile(path, name)


def output_target(path: Path | None, *, tidies: bool = True) -> OutputTarget:
    """Returns the target of an output, which is compressed where its suffix says so.

    Args:
        path: The path; ``None`` is standard output.
        tidies: See ``AtomicFile``.
    """
    if path is None:
        return StandardOutput()
    compression = COMPRESSIONS.get(compression_suffix(path))
    target = ObjectTarget(path) if isinstance(path, ObjectPath) else AtomicFile(path, tidies=tidies)
    return target if compression is None else CompressedTarget(target, compression)
