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

"""Zip files of bundles, the same bytes for the same content, and the list of them that a zoo keeps."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_sliceinterp.files import atomic_path
from monai_sliceinterp.zoo.checks import check_bundle
from monai_sliceinterp.zoo.huggingface import check_owner, model_card, write_repository
from monai_sliceinterp.zoo.layout import bundle_files

__all__ = ["MODEL_INFO", "PackedBundle", "pack_bundles", "write_archive"]

MODEL_INFO = "model_info.json"
"""The list of all zip files beside them."""


@dataclass(frozen=True)
class PackedBundle:
    """A zip file of a bundle.

    Attributes:
        name: name of the bundle.
        version: its version.
        path: the zip file.
        checksum: SHA-1 of the zip file, which MONAI's model zoo keeps.
        sha256: SHA-256 of it, which ``sliceinterp`` checks after a download.
        repository: folder as a repository on Hugging Face holds it, where that was asked for.
    """

    name: str
    version: str
    path: Path
    checksum: str
    sha256: str
    repository: Path | None = None

    @property
    def key(self) -> str:
        """Name of the zip file without its suffix, as zoos list it: ``asi_v0.1.0``."""
        return f"{self.name}_v{self.version}"


def pack_bundles(
    bundles: Sequence[str | Path], output_dir: str | Path, source: str = "", huggingface: str = ""
) -> list[PackedBundle]:
    """Write ``<name>_v<version>.zip`` of every bundle, and list them in ``model_info.json`` beside them.

    All bundles are checked before anything is written, see :func:`monai_sliceinterp.zoo.check_bundle`.

    Args:
        bundles: folders of bundles.
        output_dir: folder for the zip files; it is made where it does not exist. Versions that its ``model_info.json``
            lists already stay in it.
        source: address of the folder that the zip files will be downloaded from, for the list; "" where it is not
            known.
        huggingface: user or organization on Hugging Face; where given, each bundle is also laid out as its repository
            holds it, in ``huggingface/<owner>/<name>`` of the folder.

    Returns:
        The zip files, one for each bundle.

    Raises:
        ValueError: with one line, if a bundle is incomplete or out of step, two have the same name, or the list is
            not readable.
        OSError: if a file cannot be written.

    Example:
        >>> import tempfile
        >>> pack_bundles(["nowhere/asi"], tempfile.mkdtemp())
        Traceback (most recent call last):
        ...
        ValueError: nowhere/asi: no such folder; expected the folder of a bundle, such as bundles/asi.
    """
    checked: dict[str, tuple[str, dict[str, Path]]] = {}
    for bundle in bundles:
        name, files = Path(bundle).resolve().name, bundle_files(bundle)
        if name in checked:
            raise ValueError(f"{bundle}: a bundle {name} is already to be packed; expected different names.")
        checked[name] = check_bundle(name, files), files
        if huggingface:
            model_card(name, files, check_owner(huggingface))
    folder = Path(output_dir)
    listed = _read_model_info(folder / MODEL_INFO)
    folder.mkdir(parents=True, exist_ok=True)
    packed = []
    for name, (version, files) in checked.items():
        path = folder / f"{name}_v{version}.zip"
        write_archive(path, name, files)
        content = path.read_bytes()
        sums = (hashlib.sha1(content).hexdigest(), hashlib.sha256(content).hexdigest())
        repository = folder / "huggingface" / huggingface / name if huggingface else None
        if repository is not None:
            write_repository(repository, name, files, huggingface)
        packed.append(PackedBundle(name, version, path, *sums, repository))
    for item in packed:
        address = f"{source.rstrip('/')}/{item.path.name}" if source else ""
        listed[item.key] = {"checksum": item.checksum, "sha256": item.sha256, "source": address}
    with atomic_path(folder / MODEL_INFO) as part:
        part.write_text(json.dumps(listed, indent=4, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
    return packed


def write_archive(path: str | Path, name: str, files: Mapping[str, Path]) -> None:
    """Write files into a zip file, below one folder.

    The bytes depend on the names and the content only: members are sorted, have one date and the same permissions, and
    are stored as they are, because compressed they would depend on the version of zlib (weights hardly compress).

    Args:
        path: the zip file; it is written under a temporary name first.
        name: the folder in it.
        files: the real file of every path below the folder.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "LICENSE").write_text("Apache-2.0")
        >>> write_archive(folder / "asi.zip", "asi", {"LICENSE": folder / "LICENSE"})
        >>> zipfile.ZipFile(folder / "asi.zip").namelist()
        ['asi/LICENSE']
    """
    with atomic_path(path) as part, zipfile.ZipFile(part, "w") as archive:
        for member in sorted(files):
            info = zipfile.ZipInfo(f"{name}/{member}", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # Unix, whatever packs it
            info.external_attr = 0o100644 << 16
            archive.writestr(info, files[member].read_bytes(), compress_type=zipfile.ZIP_STORED)


def _read_model_info(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON ({error}); expected the list of zip files, or none.") from error
    if not isinstance(listed, dict) or not all(isinstance(entry, dict) for entry in listed.values()):
        raise ValueError(f"{path}: is not a list of zip files; expected an entry with checksum and source for each.")
    return listed
