"""How Sphinx builds the docs: `nox -s docs`."""

from importlib.metadata import version as version_of

project = "suno_persona"
author = "the suno_persona authors"
version = release = version_of("suno-persona")

extensions = ["myst_parser"]
exclude_patterns = ["_build", "examples"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "suno_persona"
