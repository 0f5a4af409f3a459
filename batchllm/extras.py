"""The command that installs an extra in the environment that runs."""

import shlex
import sys
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

DISTRIBUTION = "batchllm-cli"


def install_command(extra: str) -> str:
    """Returns the command that installs the libraries of an extra for the Python that runs.

    It names the libraries themselves, so it does not matter where batchllm was installed from.

    Args:
        extra: The name of an extra, such as ``excel``.
    """
    try:
        declared = [line.partition(";") for line in requires(DISTRIBUTION) or ()]
    except PackageNotFoundError:  # the package is imported from a folder
        declared = []
    marker = f'extra=="{extra}"'
    names = [name.strip() for name, _, of in declared if marker in of.replace(" ", "").replace("'", '"')]
    pip = [sys.executable, "-m", "pip", "install"]
    if find_spec("pip") is None:  # uv makes environments without pip
        pip = ["uv", "pip", "install", "--python", sys.executable]
    return shlex.join([*pip, *(names or [f"{DISTRIBUTION}[{extra}]"])])
