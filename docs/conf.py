# Copyright (c) monai_sliceinterp contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Settings of the documentation: ``sphinx-build -W docs docs/_build``."""

from __future__ import annotations

import importlib.metadata
import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

project = "monai_sliceinterp"
author = "monai_sliceinterp contributors"
copyright = f"2026, {author}"
release = importlib.metadata.version(project)

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "myst_parser"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# pages name the packages from which users import, not the files in which things stand
add_module_names = False


def link_cards(app: Sphinx, doctree: nodes.document) -> None:
    """Lead links between the model cards, which are written for the repository, to the pages that include them."""
    for reference in doctree.findall(addnodes.pending_xref):
        card = re.search(r"(\w+)/docs/README\.md", reference["reftarget"])
        if card:
            reference["refdomain"], reference["reftarget"] = "doc", f"bundles/{card[1]}"
            reference["reftargetid"] = None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect what this project needs beyond extensions."""
    app.connect("doctree-read", link_cards)
    return {"parallel_read_safe": True}
