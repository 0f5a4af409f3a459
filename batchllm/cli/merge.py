"""``batchllm merge``: the outputs of shards as one file."""

from pathlib import Path
from typing import Annotated

import typer

from batchllm.cli.parameters import option, path_argument
from batchllm.cli.streams import say
from batchllm.stores import located


def merge(
    outputs: Annotated[list[Path], path_argument("The outputs of all shards.")],
    merged: Annotated[
        Path,
        option(
            "--output",
            "-o",
            text="File to write; the suffix decides the format.",
            metavar="PATH",
            parser=located,
        ),
    ],
    inputs: Annotated[
        list[Path] | None,
        option(
            "--input",
            text="An input of the job, to compare with; needed where the journals are not beside the outputs. May be "
            "given several times.",
            metavar="FILE",
            parser=located,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Put the outputs of all shards (--shard) together, in order; a row that is missing or there twice is an error."""
    from batchllm.inspect.merge import merge_outputs
    from batchllm.printable import counted

    found = merge_outputs(outputs, merged, inputs=inputs or (), force=force)
    say(
        f"{counted(found.rows, 'row')} of {counted(found.shards, 'shard')}, checked against {found.witness}: {merged}"
    )
