"""Help in sections, as plain text: typer's rich help takes longer to load than the whole command line."""

from typing import Any

from typer.core import TyperCommand, TyperGroup

Rows = list[tuple[str, str]]


class SectionedCommand(TyperCommand):
    """A command whose help has a section for each panel of options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes arguments, then options by panel in the order in which the panels first appear."""
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

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes commands by panel, in the order in which they were registered."""
        sections: dict[str, Rows] = {}
        for name, command in self.commands.items():
            if not command.hidden:
                panel = getattr(command, "rich_help_panel", None) or "Commands"
                words = (command.help or "").partition("\n\n")[0].replace("\n", " ")
                sections.setdefault(panel, []).append((name, words))
        _write(formatter, sections)


def _write(formatter: Any, sections: dict[str, Rows]) -> None:
    for panel, rows in sections.items():
        with formatter.section(panel):
            formatter.write_dl(rows)
