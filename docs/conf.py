"""Sphinx configuration. Nothing here needs a network, so the pages build offline."""

from importlib.metadata import version as installed_version

project = "collapse-audit"
author = "The collapse-audit authors"
project_copyright = "The collapse-audit authors"
version = release = installed_version("collapse-audit")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"collapse-audit {release}"
html_copy_source = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "groupwise"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # the fields of a frozen dataclass are documented once, in its docstring

copybutton_prompt_text = r"\$ |>>> |\.\.\. |In \[\d+\]: "
copybutton_prompt_is_regexp = True
