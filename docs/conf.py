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
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

project = "monai_sliceinterp"
author = "monai_sliceinterp contributors"
copyright = f"2026, {author}"
release = importlib.metadata.version(project)

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb", ".rst": "restructuredtext"}
nb_execution_mode = "off"  # notebooks are shown as they were committed
suppress_warnings = ["misc.highlighting_failure"]  # of commands in notebooks that go over several lines
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["static"]
html_css_files = ["pages.css"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

# commands and code are copied without prompts; what they print has no button
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_selector = "div:not(.highlight-text, .highlight-none, .output) > div.highlight > pre"

napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# pages name the packages from which users import, not the files in which things stand
add_module_names = False


README_SECTIONS = {
    "find-out-which-method-is-best-for-your-scans": "how_to/evaluation",
    "use-a-part-in-your-own-pipeline": "how_to/pipeline",
    "your-own-scans": "how_to/scans",
}
"""Pages that include sections of the README to which the notebooks link."""


def copy_notebooks(app: Sphinx) -> None:
    """Copy the notebooks beside the page that lists them, as Sphinx only reads what is below docs/."""
    folder = Path(app.srcdir, "tutorials")
    for notebook in folder.glob("*.ipynb"):  # also those that have been renamed since
        notebook.unlink()
    for notebook in Path(app.srcdir).parent.glob("tutorials/*.ipynb"):
        shutil.copy(notebook, folder)


def write_bundle_pages(app: Sphinx) -> None:
    """Write a page for the model card of every bundle."""
    folder = Path(app.srcdir, "bundles")
    folder.mkdir(exist_ok=True)
    for page in folder.glob("*.md"):  # also those of bundles that are gone
        page.unlink()
    for card in sorted(Path(app.srcdir).parent.glob("bundles/*/docs/README.md")):
        name = card.parents[1].name
        text = f"```{{include}} ../../bundles/{name}/docs/README.md\n:relative-images:\n```\n"
        (folder / f"{name}.md").write_text(text)


def link_pages(app: Sphinx, doctree: nodes.document) -> None:
    """Lead links of README, cards and notebooks, which are written for the repository, to pages of this site."""
    for reference in doctree.findall(addnodes.pending_xref):
        target, name = reference["reftarget"], None
        if match := re.search(r"(\w+)/docs/README\.md", target):
            name = f"bundles/{match[1]}"
        elif match := re.fullmatch(r"(?:\.\./)?docs/(.+)\.md", target):
            name = match[1]
        elif target == "tutorials/README.md":
            name = "tutorials/index"
        elif match := re.fullmatch(r"\.\./README\.md#(.+)", target):
            name = README_SECTIONS.get(match[1])
        if name is not None:
            reference["refdomain"], reference["reftarget"], reference["reftargetid"] = "doc", name, None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect what this project needs beyond extensions."""
    app.connect("builder-inited", copy_notebooks)
    app.connect("builder-inited", write_bundle_pages)
    app.connect("doctree-read", link_pages)
    return {"parallel_read_safe": True}
