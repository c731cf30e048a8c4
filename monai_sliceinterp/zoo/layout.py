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

"""Find the files of a bundle, wherever they lie in a checkout."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

__all__ = ["FOLDERS", "REQUIRED_FILES", "bundle_files"]

FOLDERS = ("configs", "docs", "models")
"""Folders of a bundle that are packed; what runs leave beside them is not."""

REQUIRED_FILES = ("LICENSE", "docs/README.md", "configs/metadata.json", "configs/inference.json", "models/model.pt")
"""What a model zoo demands of a bundle."""

LONGEST_LINK = 255
"""Bytes of a link's text, at most."""


def bundle_files(bundle: str | Path) -> dict[str, Path]:
    """Find the files of a bundle: ``LICENSE`` and what is in ``configs/``, ``docs/`` and ``models/``.

    The bundles of this package keep their configs beside ``configs/``, which holds links to them. A link is followed;
    on a checkout without links (Windows), where it is a file with the text ``../train.json``, the config of that name
    is taken. Hidden files are left out.

    Args:
        bundle: folder of the bundle.

    Returns:
        The real file of every path in the bundle, sorted by path: ``{"configs/train.json": Path(...)}``.

    Raises:
        ValueError: with one line, if the folder is not a bundle, lacks a file that every bundle needs, or a link leads
            nowhere or astray.

    Example:
        >>> import tempfile
        >>> bundle = Path(tempfile.mkdtemp()) / "tiny"
        >>> for name in REQUIRED_FILES:
        ...     (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        ...     _ = (bundle / name).write_text("{}")
        >>> list(bundle_files(bundle))
        ['LICENSE', 'configs/inference.json', 'configs/metadata.json', 'docs/README.md', 'models/model.pt']
    """
    root = Path(bundle)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected the folder of a bundle, such as bundles/asi.")
    files = {"LICENSE": root / "LICENSE"} if (root / "LICENSE").is_file() else {}
    for folder in FOLDERS:
        for path in (root / folder).rglob("*"):
            name = path.relative_to(root)
            if path.is_dir() or any(part.startswith(".") for part in name.parts):
                continue
            if folder == "configs" and len(name.parts) == 2:
                files[name.as_posix()] = _config(root, path)
            elif path.is_file():
                files[name.as_posix()] = path
            else:
                raise ValueError(f"{path}: points to {os.readlink(path)}, which is not there; expected a file.")
    for flat in (*root.glob("*.json"), root / "logging.conf"):
        if flat.is_file() and f"configs/{flat.name}" not in files:
            raise ValueError(f"{flat}: is not in configs/; expected a link configs/{flat.name} to ../{flat.name}.")
    for member, file in files.items():
        if not file.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"{root / member}: is {file.resolve()}, outside of the bundle; expected a file within.")
    missing = [name for name in REQUIRED_FILES if name not in files]
    if missing:
        raise ValueError(f"{root}: lacks {', '.join(missing)}; a bundle in a zoo needs {', '.join(REQUIRED_FILES)}.")
    return dict(sorted(files.items()))


def _config(root: Path, path: Path) -> Path:
    """Return the real file of a config that may be a link, or the text of one."""
    target = _link(path)
    flat = root / path.name
    if target is None:
        if flat.is_file() and flat.read_bytes() != path.read_bytes():
            raise ValueError(f"{path}: differs from {flat}; expected a link to it, or the same content.")
        return path
    if target != PurePosixPath("..", path.name):
        raise ValueError(f"{path}: points to {target}; expected ../{path.name}.")
    if not flat.is_file():
        raise ValueError(f"{path}: points to {target}, which is not there; expected a config.")
    return flat


def _link(path: Path) -> PurePosixPath | None:
    """Return where a link leads, None for a real file."""
    if path.is_symlink():
        return PurePosixPath(os.readlink(path).replace("\\", "/"))
    if path.stat().st_size > LONGEST_LINK:
        return None
    text = path.read_bytes().decode(errors="replace").strip()
    return PurePosixPath(text) if re.fullmatch(r"\.\./\S+", text) else None
