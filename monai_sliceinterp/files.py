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

"""File names of images, files that are either whole or not there, and the complaints of readers."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_sliceinterp.temporary import discard, temporary_name

__all__ = [
    "IMAGE_SUFFIXES",
    "atomic_folder",
    "atomic_path",
    "check_free",
    "file_sha256",
    "file_stem",
    "last_part",
    "no_formula",
    "printable",
    "reason",
    "typed_path",
]

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr")

_CHUNK = 1 << 20

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that spreadsheets run."""


def typed_path(value: Any) -> str:
    """Return a path as it was typed, where a reader of the command line took it for something else.

    ``python -m monai.bundle`` turns ``1001`` and ``1e5`` into numbers, ``a,b`` into two names, and the # in ``Case #3``
    into two colons.

    Args:
        value: the path, or what became of it.

    Example:
        >>> typed_path("scans/a.nii.gz"), typed_path(1001)
        ('scans/a.nii.gz', '1001')
    """
    text = str(value)
    if isinstance(value, Path) or (isinstance(value, str) and "::" not in value):
        return text
    from fire.parser import DefaultParseValue  # what monai.bundle reads its command line by

    for word in sys.argv[1:]:
        words = (word, word.partition("=")[2])
        if text in words:
            return text
        for typed in words:
            if isinstance(value, str) and typed.replace("#", "::") == value:
                return typed
            if not isinstance(value, str) and DefaultParseValue(typed) == value:
                return typed
    return text


def printable(text: str) -> str:
    r"""Return a text that any terminal takes: file names need not be UTF-8.

    Example:
        >>> printable("caf\udce9.nii")
        'caf\\udce9.nii'
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def last_part(path: str | Path) -> str:
    """Return the name of a file or folder without those above it, also of "." and "..".

    Example:
        >>> last_part("scans/a.nii.gz"), last_part("scans/..") == Path.cwd().name
        ('a.nii.gz', True)
    """
    name = Path(path).name
    return Path(path).resolve().name if name in ("", "..") else name  # the folder one is in, or the one above


def file_stem(path: str | Path) -> str:
    """Return the name of a file without its image suffix; the name of a folder.

    Example:
        >>> file_stem("scans/a.b.nii.gz"), file_stem("scans/a.mha")
        ('a.b', 'a')
    """
    name = last_part(path)
    for suffix in (*IMAGE_SUFFIXES, ".dcm"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def reason(error: BaseException) -> str:
    r"""Return the complaint of a reader of files, in one line without the full stop.

    Readers of ITK put the line of their source code first and the cause last.

    Example:
        >>> reason(RuntimeError("somewhere in a reader:\nunexpected end of file.\n"))
        'unexpected end of file'
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip().rstrip(".") if lines else type(error).__name__


def no_formula(text: Any) -> Any:
    """Mark a text that a spreadsheet would run, as it does ``=1+1`` in the name of a file, as text.

    Example:
        >>> no_formula("=1+1"), no_formula("scan")
        ("'=1+1", 'scan')
    """
    return f"'{text}" if str(text)[:1] in _FORMULAS else text


def file_sha256(path: str | Path) -> str:
    """Compute the SHA-256 of a file in hexadecimal digits; the file is read in chunks.

    Args:
        path: the file.

    Raises:
        ValueError: if the file is missing or cannot be read.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "model.pt"
        >>> _ = file.write_bytes(b"abc")
        >>> file_sha256(file)[:16]
        'ba7816bf8f01cfea'
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror or error}); expected a file to take the hash of."
        ) from error
    return digest.hexdigest()


def check_free(path: Path, overwrite: bool) -> None:
    """Check that a file or folder, which may be a link to nothing, is not there or may be replaced.

    Raises:
        ValueError: if not.

    Example:
        >>> check_free(Path("nowhere"), overwrite=False)
    """
    if not overwrite and os.path.lexists(path):
        raise ValueError(f"{path}: exists already; expected another output_dir, or --overwrite true.")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Provide a temporary name to write to, and rename the file when it is complete.

    A run that fails or is killed while writing leaves an older file as it was, and never a half one. The temporary file
    is hidden, ends like the file itself and lies in the same folder, which must exist. What a killed process leaves,
    :func:`monai_sliceinterp.temporary.sweep` removes.

    Args:
        path: the file.

    Raises:
        OSError: if the file cannot be written.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "scores.csv"
        >>> with atomic_path(target) as part:
        ...     _ = part.write_text("psnr")
        >>> target.read_text(), len(os.listdir(target.parent))
        ('psnr', 1)
    """
    target = Path(path)
    part = temporary_name(target, file_stem(target))
    try:
        part.touch(exist_ok=False)
        yield part
        os.replace(part, target)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # a disk that is full does not tell where
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Provide a hidden folder to write to, and rename it when it is complete; one that is there is replaced then.

    Args:
        path: the folder; the one above must exist.

    Raises:
        OSError: if the folder cannot be written.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "series"
        >>> with atomic_folder(target) as part:
        ...     _ = (part / "1.dcm").write_text("")
        >>> os.listdir(target), len(os.listdir(target.parent))
        (['1.dcm'], 1)
    """
    folder = Path(path)
    part, old = (temporary_name(folder, folder.name, kind) for kind in ("part", "old"))
    try:
        part.mkdir()
        yield part
        if folder.exists():
            os.replace(folder, old)
        os.replace(part, folder)
    finally:
        discard(part)
        if os.path.lexists(old) and not os.path.lexists(folder):  # interrupted in between
            os.replace(old, folder)
    discard(old)
