"""Builds the documentation: ``nox -s docs``."""

from batchllm import __version__

project = "batchllm"
version = release = __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"batchllm {__version__}"
suppress_warnings = ["myst.header"]
