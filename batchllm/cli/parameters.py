"""Parameters of commands from the table of options, and help in sections.

The help is plain text: typer's rich help takes longer to load than the whole command line.
"""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from batchllm.cli.help import MORE, show_short_help, write_examples
from batchllm.errors import UsageError
from batchllm.job.options import Option
from batchllm.stores import located


def path_argument(text: str, metavar: str = "OUTPUT...") -> Any:
    """Returns an argument that is a path, or the URL of an object; ``text`` is its help."""
    return typer.Argument(help=text, metavar=metavar, show_default=False, parser=located)


def word_argument(text: str, metavar: str) -> Any:
    """Returns an argument that is taken as it is; ``text`` is its help."""
    return typer.Argument(help=text, metavar=metavar, show_default=False)


def option(*flags: str, text: str, metavar: str, **more: Any) -> Any:
    """Returns an option that takes a value; ``text`` is its help, which says the default where there is one."""
    return typer.Option(*flags, help=text, metavar=metavar, show_default=False, **more)


JournalOption = Annotated[
    Path | None, option(text="The job's journal, where it is elsewhere.", metavar="PATH")
]
JsonOption = Annotated[bool, typer.Option("--json", help="As one JSON object.")]
OutputArgument = Annotated[Path, path_argument("The job's OUTPUT (or its journal).", "OUTPUT")]
OutputOrWorkArgument = Annotated[
    Path, path_argument("The job's OUTPUT, its journal, or with --engine its work folder.", "OUTPUT")
]


def with_parameters(
    function: Callable[..., None],
    name: str,
    arguments: Iterable[inspect.Parameter],
    options: Iterable[Option],
) -> Callable[..., None]:
    """Gives a function the signature that typer reads: these arguments, and the options as keywords.

    An option that is not given is ``None`` or ``False``. Values stay text; the job parses them.
    """
    parameters = [*arguments, *map(_keyword, options), _SHORT_HELP]
    function.__name__ = name
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return function


def argument(name: str, kind: Any, help_: str, metavar: str, **more: Any) -> inspect.Parameter:
    """A positional argument of a command; ``default`` makes it optional."""
    annotation = Annotated[kind, word_argument(help_, metavar)]
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation, **more)


def _keyword(option: Option) -> inspect.Parameter:
    is_flag = option.kind.python_type is bool
    info = typer.Option(
        *option.flags,
        help=option.full_help,
        rich_help_panel=option.panel,
        metavar=None if is_flag else option.metavar or option.kind.metavar,
        show_default=False,
    )
    kind: Any = (
        bool if is_flag else (list[str] if option.kind.repeated or option.kind.by_comma else str) | None
    )
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[kind, info],
        default=False if is_flag else None,
    )


_SHORT_HELP = inspect.Parameter(
    "short_help",
    inspect.Parameter.KEYWORD_ONLY,
    annotation=Annotated[
        bool,
        typer.Option(
            "-h",
            help="Show the options that people use.",
            callback=show_short_help,
            is_eager=True,
            expose_value=False,
            show_default=False,
        ),
    ],
    default=False,
)

Rows = list[tuple[str, str]]


class SectionedCommand(TyperCommand):
    """A command whose help has a section for each panel of options; what takes one value is given once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the arguments.

        Raises:
            UsageError: An option that takes one value is given twice, so that one of them would be lost, or there are
                more arguments than the command takes.
        """
        parser: Any = self.make_parser(ctx)
        _, beyond, given = parser.parse_args(args=list(args))  # an entry for each occurrence
        if beyond and not ctx.allow_extra_args:
            arguments = [each for each in self.get_params(ctx) if each.param_type_name == "argument"]
            taken = " and ".join(str(each.metavar or each.name).strip("[]{}") for each in arguments)
            raise UsageError(
                f"{ctx.info_name} takes {f'one {taken}' if arguments else 'no argument'}, and "
                f"{' '.join(map(repr, map(str, beyond)))} {'is' if len(beyond) == 1 else 'are'} more; leave "
                f"{'it' if len(beyond) == 1 else 'them'} out, or put a name with spaces into quotes"
            )
        for parameter in given:
            single = parameter.param_type_name == "option" and not (parameter.multiple or parameter.is_flag)
            if single and given.count(parameter) > 1:
                raise UsageError(f"{parameter.opts[0]} is given twice; it takes one value, so give it once")
        rest: list[str] = super().parse_args(ctx, args)
        return rest

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Writes what the command does, and its examples."""
        super().format_help_text(ctx, formatter)
        write_examples(formatter, self.name or "")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes arguments, then options by panel, in the order in which the panels first appear."""
        sections: dict[str, Rows] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
                panel = getattr(parameter, "rich_help_panel", None) or usual
                sections.setdefault(panel, []).append(record)
        _write(formatter, sections)


class SectionedGroup(TyperGroup):
    """A group whose help has a section for each panel of commands."""

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Writes what the program does, and its examples."""
        super().format_help_text(ctx, formatter)
        write_examples(formatter, self.name or "")

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Says where there is more."""
        formatter.write_paragraph()
        formatter.write_text(MORE)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes commands by panel, in the order in which they were registered."""
        sections: dict[str, Rows] = {}
        for name, command in self.commands.items():
            panel = getattr(command, "rich_help_panel", None) or "Commands"
            first = (command.help or "").partition("\n\n")[0].replace("\n", " ")
            sections.setdefault(panel, []).append((name, first))
        _write(formatter, sections)


def _write(formatter: Any, sections: dict[str, Rows]) -> None:
    for panel, rows in sections.items():
        with formatter.section(panel):
            formatter.write_dl(rows)
