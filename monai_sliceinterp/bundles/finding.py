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

"""Where bundles are found: in the folder of an environment variable, a checkout, or the user's cache."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_sliceinterp.archives import unpack_zip
from monai_sliceinterp.bundles.naming import CLASSICAL
from monai_sliceinterp.checks import closest

__all__ = [
    "BUNDLES_VARIABLE",
    "INFERENCE",
    "bundle_roots",
    "cache_folder",
    "config_folder",
    "find_bundle",
    "find_bundles",
    "read_metadata",
    "unpacked",
]

INFERENCE = "inference.json"
"""Name of the config that is run."""

BUNDLES_VARIABLE = "MONAI_SLICEINTERP_BUNDLES"
"""Environment variable with the folder that bundles are looked for in first, and are downloaded to."""


def config_folder(bundle: Path) -> Path | None:
    """Find the folder of a bundle's configs; None where it has none.

    Example:
        >>> config_folder(Path("nowhere")) is None
        True
    """
    return next((folder for folder in (bundle, bundle / "configs") if (folder / INFERENCE).is_file()), None)


def cache_folder() -> Path:
    """Return the folder that bundles are downloaded to: the one of the environment variable, else the user's cache.

    Example:
        >>> cache_folder().is_absolute()
        True
    """
    if chosen := os.environ.get(BUNDLES_VARIABLE):
        return Path(chosen).absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("monai_sliceinterp", appauthor=False), "bundles").absolute()


def bundle_roots() -> list[Path]:
    """List the folders in which bundles are looked for, the first one first.

    These are the folder of the environment variable :data:`BUNDLES_VARIABLE`, ``bundles`` in the current folder,
    ``bundles`` of the checkout that the package is part of, and the user's cache.

    Example:
        >>> bundle_roots()[-1] == cache_folder()
        True
    """
    here, checkout = Path.cwd(), Path(__file__).resolve().parents[2]
    roots = [here / "bundles"]
    if (checkout / "setup.cfg").is_file():  # not where packages are installed
        roots.append(checkout / "bundles")
    if os.environ.get(BUNDLES_VARIABLE):
        roots.insert(0, cache_folder())
    return list(dict.fromkeys([*roots, cache_folder()]))


def find_bundles() -> dict[str, Path]:
    """Find all bundles: the folder of each by its name.

    Example:
        >>> find_bundles().get("nonsense") is None
        True
    """
    found: dict[str, Path] = {}
    for root in bundle_roots():
        for entry in sorted(root.iterdir()) if root.is_dir() else ():
            if not entry.name.startswith(".") and config_folder(entry):
                found.setdefault(entry.name, entry)
    return dict(sorted(found.items()))


def find_bundle(source: str, classical: Sequence[str] = CLASSICAL) -> Path:
    """Find the folder or the zip file of a bundle.

    Args:
        source: name of a bundle in one of :func:`bundle_roots`, which goes first, or a path.
        classical: names of methods without a network, for the message.

    Raises:
        ValueError: with one line, if there is no such bundle.

    Example:
        >>> find_bundle("asy")
        Traceback (most recent call last):
        ...
        ValueError: unknown method 'asy': expected linear, cubic, lanczos, motion, ...
    """
    known = find_bundles() if Path(source).name == source else {}
    path = known.get(source, Path(source))
    if path.is_dir():
        if config_folder(path):
            return path
        raise ValueError(f"{path}: is not a bundle; expected a folder with {INFERENCE} or configs/{INFERENCE}.")
    if path.is_file():
        if zipfile.is_zipfile(path):
            return path
        raise ValueError(f"{path}: is not a zip file; expected a bundle's folder or the zip file of one.")
    known = known or find_bundles()
    where = f"a bundle in ./bundles, ${BUNDLES_VARIABLE} or {cache_folder()}"
    raise ValueError(
        f"unknown method {source!r}: expected {', '.join(classical)}, {where} ({', '.join(known) or 'there is none'}), "
        f"or the folder or zip file of a bundle{closest(source, [*classical, *known]) or '.'}"
    )


def read_metadata(bundle: Path) -> dict[str, Any]:
    """Read the metadata of a bundle; empty where it has none.

    Raises:
        ValueError: if they are not a JSON object.

    Example:
        >>> read_metadata(Path("nowhere"))
        {}
    """
    folder = config_folder(bundle)
    file = next((f / "metadata.json" for f in (bundle, folder) if f and (f / "metadata.json").is_file()), None)
    if file is None:
        return {}
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: is not JSON ({error}); expected the metadata of a bundle.") from error
    if not isinstance(metadata, dict):
        raise ValueError(f"{file}: is not the metadata of a bundle; expected a JSON object.")
    return metadata


@contextmanager
def unpacked(path: str | Path) -> Iterator[Path]:
    """Unpack the zip file of a bundle, or of a folder that is one, and yield the bundle's temporary folder.

    Raises:
        ValueError: if it is damaged, would write outside that folder, or holds no bundle.
    """
    stem = Path(path).stem
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root).resolve() / stem  # a bundle at the top of the file is called like the file
        unpack_zip(path, folder)
        bundles = [entry for entry in (folder, *sorted(folder.iterdir())) if config_folder(entry)]
        if not bundles:
            raise ValueError(f"{path}: contains no bundle; expected a folder with configs/{INFERENCE}.")
        yield bundles[0]
