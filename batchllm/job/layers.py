"""Where a setting comes from: flags, then ``BATCHLLM_*`` variables, then the job file.

A layer holds raw values and knows what to call them in an error; ``Given`` asks the layers in turn, parses
the first value there is, and remembers where it was. Template, SDK variables and preset come after these, and
are asked where they mean something (``connection``, ``assemble``).
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchllm.errors import UsageError
from batchllm.job.settings import SETTINGS, Setting

STANDARD_STREAM = "-"


@dataclass(frozen=True, slots=True)
class Layer:
    """One place where settings are given.

    Attributes:
        values: Setting to raw value.
        called: Setting to what an error calls it: ``--rpm``, ``BATCHLLM_RPM``, ``rpm in job.toml``.
        source: Setting to the same in short, for ``--dry-run``.
        folder: What relative paths are relative to; ``None``: the working directory.
    """

    values: Mapping[str, Any]
    called: Callable[[str], str]
    source: Callable[[str], str]
    folder: Path | None = None


def flag_layer(flags: Mapping[str, Any]) -> Layer:
    """The command line, or the arguments of the library; ``None`` is not given.

    Raises:
        UsageError: There is no such setting.
    """
    for name in flags:
        if name not in SETTINGS:
            raise UsageError(f"there is no option {name}{did_you_mean(name)}")
    given = {name: value for name, value in flags.items() if value is not None}
    return Layer(given, lambda name: SETTINGS[name].flag, lambda name: SETTINGS[name].flag)


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """The ``BATCHLLM_*`` variables; an empty one is not set.

    Raises:
        UsageError: A variable is nearly the name of a setting: one that was misspelled, and would be
            passed over in silence.
    """
    known = {setting.variable: name for name, setting in SETTINGS.items()}
    for variable in environ:
        if variable.startswith("BATCHLLM_") and variable not in known:
            near = difflib.get_close_matches(variable, known, n=1, cutoff=0.92)
            if near:
                raise UsageError(
                    f"the environment variable {variable} means nothing (did you mean {near[0]}?)"
                )
    given = {name: environ[variable] for variable, name in known.items() if environ.get(variable)}
    return Layer(given, lambda name: SETTINGS[name].variable, lambda name: SETTINGS[name].variable)


def file_layer(path: Path, table: Mapping[str, Any]) -> Layer:
    """The ``[job]`` table of a job file.

    Raises:
        UsageError: It has an unknown key.
    """
    for name in table:
        if name not in SETTINGS:
            raise UsageError(f"{path}: [job] has the unknown key {name}{did_you_mean(name)}")
    return Layer(table, lambda name: f"{name} in {path}", lambda _: str(path), path.parent)


def did_you_mean(name: str) -> str:
    """`` (did you mean temperature?)``, or nothing."""
    near = difflib.get_close_matches(name.lower().replace("-", "_"), SETTINGS, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


@dataclass(frozen=True, slots=True)
class Given:
    """The layers, strongest first, and where each value that was asked for came from."""

    layers: tuple[Layer, ...]
    sources: dict[str, str] = field(default_factory=dict)

    def rank(self, name: str) -> int:
        """Number of the layer that gives the setting, 0 the strongest; how many there are where none does."""
        return next(
            (rank for rank, layer in enumerate(self.layers) if name in layer.values), len(self.layers)
        )

    def get(self, name: str, default: Any = None) -> Any:
        """The parsed value of a setting, or the default.

        Raises:
            UsageError: It is not what it may be; the message names flag, variable or key.
        """
        rank = self.rank(name)
        if rank == len(self.layers):
            return default
        self.sources[name] = self.layers[rank].source(name)
        return _parsed(self.layers[rank], SETTINGS[name])

    def path(self, name: str) -> Path | None:
        """A setting that is a path; ``-`` stays ``-``."""
        found: Path | None = self.get(name)
        return found

    def merged(self, name: str) -> dict[str, Any]:
        """A table that all layers fill together, the strongest last; each key has its own source."""
        table: dict[str, Any] = {}
        for layer in reversed(self.layers):
            if name in layer.values:
                found = _parsed(layer, SETTINGS[name])
                self.sources.update({f"{name}.{key}": layer.source(name) for key in found})
                table.update(found)
        return table

    def called(self, name: str) -> str:
        """What an error calls the setting where it was given: ``--labels``, ``labels in job.toml``."""
        rank = self.rank(name)
        return self.layers[rank].called(name) if rank < len(self.layers) else SETTINGS[name].flag


def _parsed(layer: Layer, setting: Setting) -> Any:
    try:
        value = setting.parse(layer.values[setting.name])
    except ValueError as error:
        raise UsageError(f"{layer.called(setting.name)} {error}") from None
    if setting.is_path and layer.folder is not None:
        return _relative_to(layer.folder, value)
    return value


def _relative_to(folder: Path, value: Any) -> Any:
    """Paths of a job file, relative to it. Text that may be a path is one if there is such a file."""
    if isinstance(value, tuple):
        return tuple(str(folder / part) for part in value)
    if isinstance(value, Path):
        return value if str(value) == STANDARD_STREAM else folder / value.expanduser()
    return str(folder / value) if _is_file(folder / value) else value


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
