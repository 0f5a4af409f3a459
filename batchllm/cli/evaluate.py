"""``batchllm evaluate`` and ``compare``: figures against known answers, and between outputs."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from batchllm.cli.parameters import JournalOption, path_argument
from batchllm.cli.streams import say
from batchllm.errors import ExitStatus, UsageError
from batchllm.printable import counted, printable

AsOption = Annotated[
    str | None,
    typer.Option(
        "--as",
        help="Compare as label, labels, number or text.  (what the job and the known answers say)",
        metavar="KIND",
        show_default=False,
    ),
]
OnOption = Annotated[
    str | None,
    typer.Option(help="With a gold file: the column that both files have.", metavar="ID", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="As one JSON object.")]
GOLD_HELP = (
    "The known answers: a column, ANSWER=COLUMN for one of several answer columns, or a file (with --on)."
)


def evaluate(
    outputs: Annotated[list[Path], path_argument("The job's OUTPUT; several are taken together.")],
    gold: Annotated[list[str], typer.Option(help=GOLD_HELP, metavar="COLUMN|FILE", show_default=False)],
    on: OnOption = None,
    as_kind: AsOption = None,
    as_json: JsonOption = False,
    disagreements: Annotated[
        Path | None,
        typer.Option(
            help="Write the answers that are not the known ones here.", metavar="FILE", show_default=False
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(
            help="Exit with status 1 where the accuracy is lower.",
            min=0,
            max=1,
            metavar="SHARE",
            show_default=False,
        ),
    ] = None,
    journal: JournalOption = None,
) -> None:
    """Compare the answers of OUTPUT with known answers.

    Labels get accuracy, F1, kappa and a confusion matrix; several labels F1 and exact match; numbers the mean absolute
    error and Spearman; texts exact match and chrF. A row without an answer counts as wrong.
    """
    from batchllm.evaluate.answered import chained, open_output
    from batchllm.evaluate.files import evaluate_answered
    from batchllm.evaluate.gold import gold_of

    if journal is not None and len(outputs) > 1:
        raise UsageError("--journal is that of one output; leave it out")
    rows = chained([open_output(output, journal) for output in outputs])
    found = evaluate_answered(rows, gold_of(gold, rows, on), kind=as_kind, disagreements=disagreements)
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        typer.echo(printable("\n".join(found.lines())))
    if disagreements is not None:
        say(f"Written: {disagreements}")
    if min_accuracy is not None and found.accuracy < min_accuracy:
        say(f"batchllm: the accuracy {found.accuracy:.4f} is below --min-accuracy {min_accuracy:g}")
        sys.exit(ExitStatus.SOME_FAILED)


def compare(
    outputs: Annotated[list[Path], path_argument("Outputs of the same rows.", "OUTPUT OUTPUT...")],
    gold: Annotated[
        list[str] | None, typer.Option(help=GOLD_HELP, metavar="COLUMN|FILE", show_default=False)
    ] = None,
    on: OnOption = None,
    as_kind: AsOption = None,
    as_json: JsonOption = False,
    differences: Annotated[
        Path | None,
        typer.Option(help="Write the rows that differ here.", metavar="FILE", show_default=False),
    ] = None,
    vote: Annotated[
        Path | None,
        typer.Option(
            help="Write the answer that most outputs give here; where several are equally frequent, the first of them.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Compare the answers of several outputs of the same rows: agreement, and with --gold which is better.

    Rows are matched by the columns that the prompts read, equal ones by their order.
    """
    from batchllm.evaluate.answered import open_output
    from batchllm.evaluate.files import compare_answered

    if on is not None and not gold:
        raise UsageError("--on goes with --gold FILE; add that")
    found, ties = compare_answered(
        [open_output(path) for path in outputs],
        gold or None,
        on=on,
        kind=as_kind,
        differences=differences,
        vote=vote,
    )
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        typer.echo(printable("\n".join(found.lines())))
    if differences is not None:
        say(f"Written: {differences} ({counted(found.differences, 'row')})")
    if vote is not None:
        say(f"Written: {vote} ({counted(ties, 'tie')}, decided by the order of the outputs)")
