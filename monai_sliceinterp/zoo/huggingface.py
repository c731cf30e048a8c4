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

"""Folders of bundles as repositories on Hugging Face hold them: real files, and a model card with its header."""

from __future__ import annotations

import json
import posixpath
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from monai_sliceinterp.files import atomic_folder

__all__ = ["check_owner", "model_card", "write_repository"]

_TASK = "image-to-image"
_LICENSES = {"apache-2.0": r"Apache(-2\.0\b| License\s+Version 2\.0\b)", "mit": r"\bMIT( License)?\b"}
_ATTRIBUTES = "".join(f"*.{kind} filter=lfs diff=lfs merge=lfs -text\n" for kind in ("onnx", "png", "pt", "ts"))


def check_owner(owner: str) -> str:
    """Check the name of a user or an organization on Hugging Face.

    Raises:
        ValueError: if it cannot be one.

    Example:
        >>> check_owner("MONAI")
        'MONAI'
    """
    if not re.fullmatch(r"\w[\w.-]{0,95}", owner):
        raise ValueError(f"--huggingface {owner}: expected a user or an organization, such as MONAI.")
    return owner


def model_card(name: str, files: Mapping[str, Path], owner: str) -> str:
    """Write the model card of a bundle for the top of a repository on Hugging Face.

    It is ``docs/README.md`` below a header in YAML with license, library and tags, and with a command that downloads
    the bundle. Links to files of the bundle lead there from the top; links to the cards of other bundles beside it lead
    to the repositories of these.

    Args:
        name: name of the bundle.
        files: the real file of every path in it, see :func:`monai_sliceinterp.zoo.bundle_files`.
        owner: user or organization.

    Raises:
        ValueError: with one line, if the card has no tags, its license has no identifier, or a link leads nowhere.
    """
    path = files["docs/README.md"]
    card = path.read_text(encoding="utf-8")
    text = files["LICENSE"].read_text(encoding="utf-8")
    license_ = next((key for key, pattern in _LICENSES.items() if re.search(pattern, text)), None)
    if license_ is None:
        raise ValueError(f"{files['LICENSE']}: is no license that is known; expected one of {', '.join(_LICENSES)}.")
    match = re.search(r"^## Tags\n+(.+?)\n\n", card, re.MULTILINE | re.DOTALL)
    if match is None:
        raise ValueError(f"{path}: has no section '## Tags'; expected one with words, divided by commas.")
    tags = ["monai", "medical", *(" ".join(tag.split()) for tag in match[1].split(","))]
    header = [f"license: {license_}", "library_name: monai", f"pipeline_tag: {_TASK}", "tags:"]
    header += [f"- {json.dumps(tag, ensure_ascii=False)}" for tag in dict.fromkeys(tags)]
    title, _, rest = _relinked(card, path, files.keys(), owner).partition("\n")
    command = f"python -m monai.bundle download --name {name} --source huggingface_hub --repo {owner}/{name}"
    download = f"```bash\n{command} --bundle_dir bundles\n```"
    return "\n".join(["---", *header, "---", title, "", "A MONAI bundle:", "", download, rest])


def _relinked(card: str, path: Path, members: Collection[str], owner: str) -> str:
    """Lead the links of a card in docs/ to where they lead from the top of a repository."""

    def lead(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        if re.match(r"[a-z]+:|$", target):
            return match[0]
        other = re.fullmatch(r"\.\./\.\./(\w+)/docs/README\.md", target)
        if other:
            return f"](https://huggingface.co/{owner}/{other[1]}{anchor})"
        member = posixpath.normpath(posixpath.join("docs", target))
        if member not in members:
            raise ValueError(f"{path}: links to {target}, which is not in the bundle; expected a file of it.")
        return f"]({member}{anchor})"

    return re.sub(r"\]\(([^()\s#]*)(#[^()\s]*)?\)", lead, card)


def write_repository(folder: str | Path, name: str, files: Mapping[str, Path], owner: str) -> Path:
    """Write a bundle as a repository on Hugging Face holds it.

    Args:
        folder: the folder for it, whole or not there; one that is there is replaced.
        name: name of the bundle.
        files: the real file of every path in it.
        owner: user or organization, in whose repositories the card's links end.

    Returns:
        The folder.

    Raises:
        ValueError: with one line, see :func:`model_card`.
        OSError: if a file cannot be written.
    """
    target, card = Path(folder), model_card(name, files, owner)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(target) as part:
        for member, file in files.items():
            (part / member).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, part / member)
        (part / "README.md").write_text(card, encoding="utf-8", newline="\n")
        (part / ".gitattributes").write_text(_ATTRIBUTES, encoding="utf-8", newline="\n")
    return target
