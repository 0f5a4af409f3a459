"""Where the value of an option comes from: flags, then ``BATCHLLM_*`` variables, then the job file.

A layer holds raw values and knows what to call them in an error. ``Given`` asks the layers in turn, parses the first
value there is, and remembers where it was. Template, SDK variables and preset come after these; ``connection`` and
``assemble`` ask them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchllm.errors import UsageError, did_you_mean
from batchllm.job.options import OPTIONS, SWITCHES, TABLES
from batchllm.stores import ObjectPath

STANDARD_STREAM = "-"


@dataclass(frozen=True, slots=True)
class Layer:
    """Options that are given in one place.

    Attributes:
        values: Option to raw value.
        source: Option to what it is called: ``--rpm``, ``BATCHLLM_RPM``, or the job file.
        file: The job file; relative paths are relative to its folder.
        titles: Option to what an error calls it instead of ``rpm in job.toml``.
    """

    values: Mapping[str, Any]
    source: Callable[[str], str]
    file: Path | None = None
    titles: Mapping[str, str] = field(default_factory=dict)

    def called(self, name: str) -> str:
        """What an error calls the option: ``--rpm``, ``rpm in job.toml``."""
        usual = f"{name} in {self.file}" if self.file else self.source(name)
        return self.titles.get(name, usual)

    def parsed(self, name: str) -> Any:
        """The parsed value of an option.

        Raises:
            UsageError: It has the wrong form.
        """
        kind = OPTIONS[name].kind
        try:
            value = kind(self.values[name])
        except ValueError as error:
            short = OPTIONS[name].short
            also = f" ({short})" if short and self.called(name) == OPTIONS[name].flag else ""
            raise UsageError(f"{self.called(name)}{also} {error}") from None
        return _relative_to(self.file.parent, value) if kind.is_path and self.file else value


def flag_layer(flags: Mapping[str, Any]) -> Layer:
    """The command line, or the arguments of the library; ``None`` is not given.

    Raises:
        UsageError: There is no such option.
    """
    for name in flags:
        if name not in OPTIONS:
            raise UsageError(f"there is no option {name}{_near(name)}")
    given = {name: value for name, value in flags.items() if value is not None}
    return Layer(given, lambda name: OPTIONS[name].flag)


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """The ``BATCHLLM_*`` variables; an empty one is not set.

    Raises:
        UsageError: A variable is nearly the name of an option, or that of a switch; it would be ignored in silence.
    """
    known = {option.variable: name for name, option in OPTIONS.items()}
    switches = {option.variable: option.flag for option in SWITCHES.values()}
    for variable in environ:
        if variable in switches:
            raise UsageError(
                f"the environment variable {variable} means nothing; give {switches[variable]} itself"
            )
        unknown = variable.startswith("BATCHLLM_") and variable not in known
        if unknown and (hint := did_you_mean(variable, known, cutoff=0.92)):
            raise UsageError(f"the environment variable {variable} means nothing{hint}")
    given = {name: environ[variable] for variable, name in known.items() if environ.get(variable)}
    return Layer(given, lambda name: OPTIONS[name].variable)


def file_layers(path: Path, data: Mapping[str, Any]) -> tuple[Layer, ...]:
    """The ``[job]`` table of a job file, then ``[variables]`` and ``[parameters]`` where it holds no template.

    Raises:
        UsageError: ``[job]`` has an unknown key.
    """
    for name in data["job"]:
        if name not in OPTIONS:
            raise UsageError(f"{path}: [job] has the unknown key {name}{_near(name)}")
    of_job = dict(data["job"])
    if "endpoints" in data:
        if "endpoints" in of_job:
            raise UsageError(f"{path}: endpoints are given in [job] and as [[endpoints]]; leave one out")
        of_job["endpoints"] = data["endpoints"]
    job = Layer(of_job, lambda _: str(path), path)
    if "messages" in data:
        return (job,)
    values = {name: data[table] for table, name in TABLES.items() if table in data}
    titles = {name: f"[{table}] of {path}" for table, name in TABLES.items()}
    return job, Layer(values, job.source, path, titles)


def _near(name: str) -> str:
    return did_you_mean(name.replace("-", "_"), OPTIONS)


@dataclass(frozen=True, slots=True)
class Given:
    """The layers, strongest first, and where each value that was asked for came from."""

    layers: tuple[Layer, ...]
    sources: dict[str, str] = field(default_factory=dict)

    def rank(self, name: str) -> int:
        """Number of the layer that gives the option, 0 the strongest; the number of layers where none does."""
        return next(
            (rank for rank, layer in enumerate(self.layers) if name in layer.values), len(self.layers)
        )

    def has(self, name: str) -> bool:
        """Whether a layer gives the option."""
        return self.rank(name) < len(self.layers)

    def get(self, name: str) -> Any:
        """The parsed value of an option, or its default.

        Raises:
            UsageError: It has the wrong form; the message names flag, variable or key.
        """
        if not self.has(name):
            return OPTIONS[name].default_value
        layer = self.layers[self.rank(name)]
        self.sources[name] = layer.source(name)
        return layer.parsed(name)

    def is_of_environment(self, name: str) -> bool:
        """Whether the option is given by its variable, which is for all jobs, and not by a flag or the job file."""
        return self.has(name) and self.layers[self.rank(name)].source(name) == OPTIONS[name].variable

    def raw(self, name: str) -> Any:
        """The value of an option as it was given; ``None`` where it was not."""
        return self.layers[self.rank(name)].values[name] if self.has(name) else None

    def alone(self) -> "Iterator[Given]":
        """Each layer by itself, the weakest first."""
        return (Given((layer,), self.sources) for layer in reversed(self.layers))

    def merged(self, name: str) -> dict[str, Any]:
        """A table that all layers fill together, the strongest last; each key has its own source."""
        table: dict[str, Any] = {}
        for layer in reversed(self.layers):
            if name in layer.values:
                found = layer.parsed(name)
                self.sources.update({f"{name}.{key}": layer.source(name) for key in found})
                table.update(found)
        return table

    def called(self, name: str) -> str:
        """What an error calls the option where it was given: ``--labels``, ``labels in job.toml``."""
        return self.layers[self.rank(name)].called(name) if self.has(name) else OPTIONS[name].flag


def _relative_to(folder: Path, value: Any) -> Any:
    """Paths of a job file, relative to it. Text that may be a path is one if there is such a file."""
    if isinstance(value, tuple):
        return tuple(_relative_to(folder, part) for part in value)
    if isinstance(value, Path):
        stays = str(value) == STANDARD_STREAM or isinstance(value, ObjectPath)
        return value if stays else folder / value.expanduser()
    return str(folder / value) if isinstance(value, str) and _is_file(folder / value) else value


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
