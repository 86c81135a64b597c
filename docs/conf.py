"""How the site is built: ``sphinx-build -W -n -b html docs docs/_build/html``."""

import re
from importlib.metadata import version as _version

project = "flowdsl"
author = "the authors of flowdsl"
version = release = _version("flowdsl")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "flowdsl"
html_copy_source = False

myst_heading_anchors = 4  # links to headings are those of a code forge

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the page of a name says what it takes in words
# ``Runtime`` shows what it has from ``Client``, which nobody names. What comes from these ancestors is not
# shown.
ANCESTORS = (
    "BaseException, dict, list, str, tuple, Enum, Generic, Protocol, ABC, Executor, Mapping, Storage, Hooks"
)
autodoc_default_options = {"members": True, "show-inheritance": True, "inherited-members": ANCESTORS}
# Names of other libraries, and those of our own that are not public, have no page to lead to.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!flowdsl\.).*"),
    (
        r"py:.*",
        r"flowdsl\.(core|engine|handle|hooks|clock|drawing|decorators|verbs|runtime|client|current|aio_runtime|\w+\.\w+\.).*",
    ),
    (r"py:.*", r"flowdsl\.(storage|codecs|testing|web|notebook)\.[a-z]\w*\..*"),
]

_OUTSIDE = re.compile(
    r"\[([^\]]*)\]\((?:\.\./)+(?:README|CONTRIBUTING|CHANGELOG|examples|tests|LICENSE)[^)]*\)"
)


def _without_links_outside(_app: object, _name: str, source: list[str]) -> None:
    """On a code forge pages lead to files beside ``docs``, too; on the site these are no pages."""
    source[0] = _OUTSIDE.sub(r"\1", source[0])


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _without_links_outside)  # type: ignore[attr-defined]
