import shlex
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from batchllm import extras

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata that an installation of this project has."""
    lines = [f"{name}; extra == '{extra}'" for extra, names in EXTRAS.items() for name in names]
    monkeypatch.setattr(extras, "requires", lambda _: [*PROJECT["dependencies"], *lines])


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_names_the_libraries_of_an_extra_and_the_python_that_runs(extra: str) -> None:
    command = shlex.split(extras.install_command(extra))
    assert command == [sys.executable, "-m", "pip", "install", *EXTRAS[extra]]


def test_where_there_is_no_pip_uv_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    assert extras.install_command("parquet").startswith(f"uv pip install --python {sys.executable} ")


def test_a_package_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> list[str]:
        raise PackageNotFoundError

    monkeypatch.setattr(extras, "requires", missing)
    assert extras.install_command("parquet").endswith(" -m pip install 'batchllm-cli[parquet]'")
