# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""The notebooks as they are committed. That they run is checked by continuous integration: ``jupyter execute``."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))
LARGEST = 600 * 1024  # bytes, pictures included

MACHINE_PATH = re.compile(r"/(?:tmp|root|home|work|Users|var|private|opt|mnt)/|\b[A-Za-z]:\\|site-packages")
WARNING = re.compile(r"Warning\b|\bWARNING\b|Traceback")
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)")


@pytest.fixture(params=NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def notebook(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def code(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def texts(notebook: dict[str, Any]) -> Iterator[str]:
    """Every text of a notebook: sources and outputs, but for pictures."""
    for cell in notebook["cells"]:
        yield "".join(cell["source"])
        for output in cell.get("outputs", []):
            yield "".join(output.get("text", []))
            for kind, value in output.get("data", {}).items():
                if not kind.startswith("image/"):
                    yield "".join(value)


def headings(path: Path) -> set[str]:
    """Anchors of the headings of a Markdown file, as its host makes them."""
    found = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in found}


def test_format(path: Path, notebook: dict[str, Any], code: list[dict[str, Any]]) -> None:
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["cells"][0]["cell_type"] == "markdown"
    assert "".join(notebook["cells"][0]["source"]).startswith("# ")
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(set(names)) == len(names)
    assert path.stat().st_size < LARGEST
    # executed from top to bottom
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))


def test_outputs(notebook: dict[str, Any], code: list[dict[str, Any]]) -> None:
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    for text in texts(notebook):
        assert not MACHINE_PATH.search(text), text
        assert not WARNING.search(text), text
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 2
    for picture in pictures:
        assert base64.b64decode("".join(picture)).startswith(b"\x89PNG\r\n")


def test_links_lead_somewhere(path: Path, notebook: dict[str, Any]) -> None:
    written = [text for cell in notebook["cells"] if cell["cell_type"] == "markdown" for text in cell["source"]]
    for target, anchor in LINK.findall("".join(written)):
        linked = path.parent / target
        assert linked.is_file(), target
        assert not anchor or anchor in headings(linked), f"{target}#{anchor}"


def test_every_notebook_is_listed() -> None:
    assert len(NOTEBOOKS) >= 5
    overview = (ROOT / "tutorials" / "README.md").read_text(encoding="utf-8")
    menu = (ROOT / "docs" / "tutorials" / "index.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"]({path.name})" in overview
        assert f"\n{path.stem}\n" in menu
    assert {target for target, _ in LINK.findall(overview)} == {path.name for path in NOTEBOOKS}
