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

"""Bundles that are not on this machine: downloaded, checked, and put where they are found."""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import logging
import os
import re
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_sliceinterp.archives import unpack_zip
from monai_sliceinterp.bundles.finding import (
    BUNDLES_VARIABLE,
    cache_folder,
    config_folder,
    find_bundle,
    find_bundles,
    unpacked,
)
from monai_sliceinterp.bundles.naming import CLASSICAL
from monai_sliceinterp.files import file_sha256

__all__ = ["BUNDLES_URL", "download_bundle", "obtain_bundle", "opened_bundle"]

BUNDLES_URL = ""
"""Address of the folder with the zip files of all bundles and their list, as ``sliceinterp pack`` writes them. Empty as
long as they are not hosted anywhere: nothing is downloaded then that no one has named."""

_LIST = "model_info.json"
_HUGGING_FACE = "huggingface_hub"
_SECONDS = 20.0
_MOST_BYTES = 4 * 2**30  # of a bundle, unpacked


@contextmanager
def opened_bundle(source: str) -> Iterator[Path | None]:
    """Provide the folder of a method's bundle, downloaded or unpacked if need be; None for a classical method.

    Args:
        source: a classical method, the name of a bundle, its folder, or its zip file.

    Raises:
        ValueError: with one line, if there is no such method.

    Example:
        >>> with opened_bundle("linear") as bundle:
        ...     bundle is None
        True
    """
    if source in CLASSICAL:
        yield None
        return
    path = obtain_bundle(source)
    if path.is_dir():
        yield path
        return
    with unpacked(path) as folder:
        yield folder


def obtain_bundle(source: str) -> Path:
    """Find a bundle, or download it where it is only a name.

    Args:
        source: see :func:`monai_sliceinterp.bundles.find_bundle`.

    Raises:
        ValueError: with one line, if there is none of the kind here, and it cannot be downloaded.

    Example:
        >>> obtain_bundle("./nowhere")
        Traceback (most recent call last):
        ...
        ValueError: unknown method './nowhere': expected linear, cubic, lanczos, motion, ...
    """
    try:
        return find_bundle(source)
    except ValueError:
        known = [*CLASSICAL, *find_bundles()]
        misspelt = difflib.get_close_matches(source, known, cutoff=0.75)
        if os.path.lexists(source) or not re.fullmatch(r"\w+", source) or misspelt:
            raise
    for root in (cache_folder(), Path.cwd()):
        for file in sorted(root.glob(f"{source}_v*.zip"), reverse=True):
            return _unpack(file, source)
    return download_bundle(source)


def download_bundle(name: str, url: str = "", repo: str = "", version: str = "") -> Path:
    """Download a bundle into :func:`monai_sliceinterp.bundles.cache_folder` and check it.

    MONAI does the download; the zip file must have the SHA-256 that the list beside it tells, and is unpacked within
    the limits of :func:`monai_sliceinterp.archives.unpack_zip`. A bundle is either complete in the folder or not there.

    Args:
        name: name of the bundle.
        url: address of a folder as ``sliceinterp pack`` writes it, instead of :data:`BUNDLES_URL`; or that of a zip
            file, which is not checked.
        repo: a repository OWNER/NAME on Hugging Face, to take it from there.
        version: version, such as 0.1.0; empty: the newest, on Hugging Face the main branch.

    Returns:
        Folder of the bundle.

    Raises:
        ValueError: with one line that says what to put where, if it cannot be downloaded or has another checksum, or
            no place is named and :data:`BUNDLES_URL` is empty.
    """
    folder = cache_folder()
    base = (url or BUNDLES_URL).rstrip("/")
    if not base and not repo:
        raise ValueError(
            f"bundle {name!r} is not here, and bundles are not hosted anywhere yet; put {name}_v*.zip, which "
            f"'sliceinterp pack' writes from a checkout, into {folder}, name the folder that has the bundle in "
            f"{BUNDLES_VARIABLE}, or say where from: sliceinterp bundles download {name} --url ADDRESS."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as part:
        try:
            if repo:
                _fetch(lambda: _download_from_hub(name, part, repo, version))
            else:
                address, checksum = (base, "") if base.endswith(".zip") else _listed(base, name, version)
                file = Path(part, f"{name}.zip")
                _fetch(lambda: _download(address, file))
                found = file_sha256(file)
                if checksum and found != checksum:
                    raise ValueError(
                        f"{address}: has SHA-256 {found[:16]}..., its list says {checksum[:16]}...: not kept, try again"
                    )
                unpack_zip(file, part, _MOST_BYTES)  # not before it is known to be the right one
        except (OSError, RuntimeError, ValueError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            where = repo or (base if base.endswith(".zip") else f"{base}/{name}_v*.zip")
            raise ValueError(
                f"bundle {name!r} is not here and cannot be downloaded ({lines[0].rstrip('.')}); put {where} into "
                f"{folder}, or name the folder that has it in {BUNDLES_VARIABLE}."
            ) from error
        complete = next((entry for entry in (Path(part, name), *Path(part).iterdir()) if config_folder(entry)), None)
        if complete is None:
            raise ValueError(f"{repo or base}: holds no bundle {name!r}; expected a folder {name}/configs.")
        return _moved(complete, folder / name)


def _listed(base: str, name: str, version: str) -> tuple[str, str]:
    """Address and SHA-256 of the zip file of a bundle, from the list in its folder."""
    with urllib.request.urlopen(f"{base}/{_LIST}", timeout=_SECONDS) as answer:
        listed = json.load(answer)
    keys = [key for key in listed if re.fullmatch(rf"{re.escape(name)}_v[\d.]+", key)]
    versions = sorted(keys, key=lambda key: [int(digits) for digits in re.findall(r"\d+", key.rpartition("_v")[2])])
    if version:
        versions = [key for key in versions if key == f"{name}_v{version}"]
    if not versions:
        there = ", ".join(sorted(listed)) or "nothing"
        raise ValueError(f"{base} has {there}")
    checksum = str(listed[versions[-1]].get("sha256") or "")
    if not checksum:
        raise ValueError(f"{base}/{_LIST} tells no SHA-256 of {versions[-1]}")
    return f"{base}/{versions[-1]}.zip", checksum


def _download(address: str, file: Path) -> None:
    from monai.apps.utils import download_url

    download_url(address, file, progress=os.isatty(2))


def _download_from_hub(name: str, folder: str, repo: str, version: str) -> None:
    import monai.bundle

    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise ValueError('pip install "monai_sliceinterp[huggingface]" for bundles on Hugging Face') from error
    monai.bundle.download(
        name=name, bundle_dir=folder, source=_HUGGING_FACE, repo=repo, version=version or None, progress=os.isatty(2)
    )


def _fetch(download: Callable[[], None]) -> None:
    """Let MONAI download, with its progress bar and without its log."""
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            download()
    except Exception as error:  # hosts and their clients have exceptions of their own
        raise ValueError(str(error) or type(error).__name__) from error
    finally:
        logging.disable(disabled)


def _unpack(file: Path, name: str) -> Path:
    """Unpack the zip file of a bundle into the folder of bundles."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with unpacked(file) as bundle, tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as part:
        shutil.copytree(bundle, Path(part, name))
        return _moved(Path(part, name), folder / name)


def _moved(source: Path, target: Path) -> Path:
    """Put a complete folder in place of an older one."""
    if target.exists():
        target.replace(source.with_name(f"{target.name}-before"))
    source.replace(target)
    return target
