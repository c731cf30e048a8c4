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

"""The page of a visual Turing test, which readers get, and the key to it, which they do not."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

from monai_sliceinterp.files import atomic_path, check_free
from monai_sliceinterp.preview.filling import as_script_data, fill_page
from monai_sliceinterp.visual_turing.study import ASKED, Question, Study

__all__ = ["VERSION", "study_files", "write_study"]

VERSION = 1
"""Version of keys and answers."""

_LEVEL = 6


def study_files(output_dir: str | Path, name: str = "turing") -> tuple[Path, Path]:
    """Return the page and the key that are written of a study.

    Example:
        >>> [file.name for file in study_files("study")]
        ['turing.html', 'turing_key.json']
    """
    return Path(output_dir) / f"{name}.html", Path(output_dir) / f"{name}_key.json"


def write_study(
    study: Study, output_dir: str | Path, name: str = "turing", overwrite: bool = False
) -> tuple[Path, Path]:
    """Write a page with a visual Turing test that needs no network, and its key.

    The page holds gray values, sizes and the question. Nothing in it names scans, methods or the order: all stacks of a
    question are 8-bit images of one size, compressed as one. Readers save their answers from it as a file.

    Args:
        study: the study.
        output_dir: folder, made if missing.
        name: how the files begin.
        overwrite: replace files that exist.

    Returns:
        The page and the key.

    Raises:
        ValueError: if a file exists.

    Example:
        >>> import tempfile
        >>> page, key = write_study(Study("0f", "preference", [], {"seed": 1}), tempfile.mkdtemp())
        >>> json.loads(key.read_text())["study"], "seed" in page.read_text()
        ('0f', False)
    """
    page_path, key_path = study_files(output_dir, name)
    for path in (page_path, key_path):
        check_free(path, overwrite)
    data = {
        "version": VERSION,
        "study": study.identity,
        "ask": ASKED[study.ask],
        "questions": [_shown(question) for question in study.questions],
    }
    key = {
        "visual_turing_test": VERSION,
        "study": study.identity,
        "ask": study.ask,
        **study.key,
        "questions": [question.key for question in study.questions],
    }
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    page = fill_page("monai_sliceinterp.visual_turing", "page.html", {"DATA": as_script_data(data)})
    for path, text in ((key_path, json.dumps(key, indent=1)), (page_path, page)):  # no page without its key
        with atomic_path(path) as part:
            part.write_text(text, encoding="utf-8")
    return page_path, key_path


def _shown(question: Question) -> dict[str, object]:
    """Return what the page holds of a question: the sizes, and all its stacks as one compressed text."""
    packed = gzip.compress(question.stacks.tobytes(), _LEVEL, mtime=0)
    return {
        "shape": list(question.stacks.shape),
        "aspect": question.aspect,
        "stacks": base64.b64encode(packed).decode(),
    }
