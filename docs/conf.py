"""How Sphinx builds the docs: `nox -s docs`."""

from importlib.metadata import version as version_of

import attrs
import suno_persona.errors
from docutils.nodes import Element, Text
from sphinx.addnodes import (
    desc_annotation,
    desc_returns,
    desc_signature,
    pending_xref,
)
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from suno_persona import _options

project = "suno_persona"
author = "the suno_persona authors"
version = release = version_of("suno-persona")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "examples"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "suno_persona"
pygments_dark_style = (
    "github-dark"  # Furo's own underlines modules, as if they were links
)
html_show_copyright = False
html_show_sourcelink = False
html_use_index = False

# What a program printed is not copied, nor is a prompt.
copybutton_selector = "div:not(.highlight-output) > div.highlight > pre"
copybutton_prompt_text = "$ "

# The reference is made of the docstrings.
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"
python_display_short_literal_types = True
python_maximum_signature_line_length = 80
# The hints of the errors need it.
vars(suno_persona.errors)["CreatePersonaRequest"] = suno_persona.CreatePersonaRequest

# What stands in single backticks is a link where it is the name of something;
# otherwise it is code.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [("py:obj", ".*")]

# The names that we link to, in Sphinx's plain format: name, kind, page.
# Nothing is downloaded.
intersphinx_mapping = {"elsewhere": ("https://", "elsewhere.inv")}

# Names as signatures and docstrings have them, and as they are documented.
DOCUMENTED_AS = {
    "AsyncLimiter": "aiolimiter.AsyncLimiter",
    "aiohttp.client.ClientSession": "aiohttp.ClientSession",
    "aiohttp.client.ClientTimeout": "aiohttp.ClientTimeout",
    "cattrs.converters.Converter": "cattrs.Converter",
    "Converter": "cattrs.Converter",
    "procrastinate.app.App": "procrastinate.App",
    "suno_persona._batch.BatchJournal": "suno_persona.journal.Journal",
    **{name: f"suno_persona.{name}" for name in suno_persona.__all__},
}

# Defaults that have a name in the code.
CONSTANTS = {
    "options.DEFAULT_MAX_CONNECTIONS": f"{_options.DEFAULT_MAX_CONNECTIONS}",
    "options.DEFAULT_TIMEOUT": (
        f"ClientTimeout(total={_options.DEFAULT_TIMEOUT.total}, "
        f"sock_connect={_options.DEFAULT_TIMEOUT.sock_connect})"
    ),
}

nitpick_ignore = [
    ("py:class", "WorkerOptions"),  # procrastinate does not document it
    # Internal: batches and workers exchange these with a journal.
    ("py:class", "Account"),
    ("py:class", "suno_persona._engine.Account"),
    ("py:class", "suno_persona._engine.Call"),
    ("py:class", "suno_persona._batch.Batch"),
    ("py:class", "suno_persona._response.Ended"),
    ("py:class", "suno_persona.models.Extra"),  # a read-only mapping
    ("py:class", "Record"),
    ("py:class", "suno_persona.journal._states.Enqueue"),
    ("py:class", "suno_persona.journal._states.Record"),
    ("py:class", "suno_persona.journal._writer.Run"),
    ("py:class", "suno_persona.testing._fake.Arrival"),
]


def rename(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element
) -> Element | None:
    """Look for a name as it is documented: here, and then elsewhere."""
    node["reftarget"] = name = DOCUMENTED_AS.get(node["reftarget"], node["reftarget"])
    python = env.get_domain("py")
    return python.resolve_xref(
        env, node["refdoc"], app.builder, "obj", name, node, content
    )


def show_public(
    app: Sphinx, name: str, obj: object, options: object, bases: list[type]
) -> None:
    """Show what is above a private base in its place."""
    bases[:] = [
        shown
        for base in bases
        for shown in (base.__bases__ if base.__name__.startswith("_") else [base])
    ]


def show_defaults(
    app: Sphinx,
    what: str,
    name: str,
    obj: type,
    options: object,
    signature: str,
    returns: str,
) -> tuple[str, str] | None:
    """Show defaults as values; and no signature of errors."""
    if what == "exception":
        return "", ""  # the page says what all are made of
    if what != "class":
        return None
    for constant, shown in CONSTANTS.items():
        signature = signature.replace(constant, shown)
    if not attrs.has(obj):
        return signature, returns
    for field in attrs.fields(obj):
        signature = signature.replace(
            f"attr_dict['{field.name}'].default", repr(field.default)
        )
    return signature.replace(
        "NOTHING",
        "(root_clip_id,)" if obj is suno_persona.CreatePersonaRequest else "...",
    ), returns


def show_async_for(app: Sphinx, domain: str, kind: str, content: Element) -> None:
    """Say `async for` where Sphinx says `async`, as if one had to await it."""
    for signature in content.parent.findall(desc_signature):
        if any(
            " Async" in returns.astext()
            for returns in signature.findall(desc_returns)
        ):
            for prefix in signature.findall(desc_annotation):
                if prefix.astext() == "async ":
                    prefix[:] = [Text("async for ")]


def setup(app: Sphinx) -> None:
    """Add these to Sphinx."""
    app.connect("missing-reference", rename, priority=400)  # before intersphinx
    app.connect("autodoc-process-bases", show_public)
    app.connect("autodoc-process-signature", show_defaults)
    app.connect("object-description-transform", show_async_for)
