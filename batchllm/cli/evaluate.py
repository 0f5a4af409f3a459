"""``batchllm evaluate`` and ``compare``: figures against known answers, and between outputs."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from batchllm.cli.parameters import JournalOption, JsonOption, option, path_argument
from batchllm.cli.streams import print_json, say
from batchllm.errors import ExitStatus, UsageError
from batchllm.printable import counted, printable

AsOption = Annotated[
    str | None,
    option(
        "--as",
        text="Compare as label, labels, number or text.  (what the job and the known answers say)",
        metavar="KIND",
    ),
]
OnOption = Annotated[
    str | None, option(text="With a gold file: the column that both files have.", metavar="ID")
]
_GOLD = option(
    text="The known answers: a column, ANSWER=COLUMN for one of several answer columns, or a file (with --on).",
    metavar="COLUMN|FILE",
)
GoldOption = Annotated[list[str] | None, _GOLD]


def evaluate(
    outputs: Annotated[list[Path], path_argument("The job's OUTPUT; several are taken together.")],
    gold: Annotated[list[str], _GOLD],
    on: OnOption = None,
    as_kind: AsOption = None,
    as_json: JsonOption = False,
    disagreements: Annotated[
        Path | None, option(text="Write the answers that are not the known ones here.", metavar="FILE")
    ] = None,
    min_accuracy: Annotated[
        float | None,
        option(text="Exit with status 1 where the accuracy is lower.", metavar="SHARE", min=0, max=1),
    ] = None,
    journal: JournalOption = None,
) -> None:
    """Compare the answers of OUTPUT with known answers.

    Labels get accuracy, F1, kappa and a confusion matrix; several labels F1 and exact match; numbers the mean absolute
    error and Spearman; texts exact match and chrF. A row without an answer counts as wrong.
    """
    from batchllm.evaluate.answered import chained, open_output
    from batchllm.evaluate.files import evaluate_answered

    if journal is not None and len(outputs) > 1:
        raise UsageError("--journal is that of one output; leave it out")
    rows = chained([open_output(output, journal) for output in outputs])
    found = evaluate_answered(rows, gold, on=on, kind=as_kind, disagreements=disagreements)
    _print(found, as_json)
    if disagreements is not None:
        say(f"Written: {disagreements}")
    if min_accuracy is not None and found.accuracy < min_accuracy:
        say(f"batchllm: the accuracy {found.accuracy:.4f} is below --min-accuracy {min_accuracy:g}")
        sys.exit(ExitStatus.SOME_FAILED)


def compare(
    outputs: Annotated[list[Path], path_argument("Outputs of the same rows.", "OUTPUT OUTPUT...")],
    gold: GoldOption = None,
    on: OnOption = None,
    as_kind: AsOption = None,
    as_json: JsonOption = False,
    differences: Annotated[
        Path | None, option(text="Write the rows that differ here.", metavar="FILE")
    ] = None,
    vote: Annotated[
        Path | None,
        option(
            text="Write the answer that most outputs give here; where several are equally frequent, the first of them.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Compare the answers of several outputs of the same rows: agreement, and with --gold which is better.

    Rows are matched by the columns that the prompts read, equal ones by their order.
    """
    from batchllm.evaluate.answered import open_output
    from batchllm.evaluate.files import compare_answered

    check_on(on, gold)
    opened = [open_output(path) for path in outputs]
    found, ties = compare_answered(
        opened, gold or None, on=on, kind=as_kind, differences=differences, vote=vote
    )
    _print(found, as_json)
    if differences is not None:
        say(f"Written: {differences} ({counted(found.differences, 'row')})")
    if vote is not None:
        say(f"Written: {vote} ({counted(ties, 'tie')}, decided by the order of the outputs)")


def check_on(on: str | None, gold: list[str] | None) -> None:
    """Refuses ``--on`` without ``--gold``.

    Raises:
        UsageError: It is given alone.
    """
    if on is not None and not gold:
        raise UsageError("--on goes with --gold FILE; add that")


def _print(found: Any, as_json: bool) -> None:
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(printable("\n".join(found.lines())))
