"""Arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

OutputArgument = Annotated[
    Path, typer.Argument(help="The job's OUTPUT (or its journal).", metavar="OUTPUT", show_default=False)
]
