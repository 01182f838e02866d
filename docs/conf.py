"""Configuration of the documentation: `make docs` builds it, offline, and stops at any warning."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from inventories import write_inventories

project = "padless"
author = "the padless authors"
release = metadata.version("padless")
project_copyright = author

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_enable_extensions = ["linkify"]
myst_linkify_fuzzy_links = False

# Docstrings have `name` for code, as Markdown has: a name that is documented becomes a link.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures without annotations; the shapes are in the text
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# Where the names of other projects are documented. Their inventories are written here rather than fetched, so that the
# documentation is built without a network.
intersphinx_mapping = {
    name: (address, str(path))
    for name, address, path in write_inventories(Path(__file__).parents[1] / "build" / "inventories")
}

html_theme = "furo"
html_title = "padless"
html_copy_source = False
html_extra_path = ["pictures"]  # the interactive page stands beside the pages that link to it
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
