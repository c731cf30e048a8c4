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

"""Zip files from elsewhere, unpacked without writing outside a folder or filling the disk."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path

__all__ = ["unpack_zip"]

_MOST_FILES = 100_000
_MOST_BYTES = 32 * 2**30
_RATIO = 200  # from the size below on, scans compress by less
_SMALL = 2**30


def unpack_zip(path: str | Path, folder: str | Path, most_bytes: int = _MOST_BYTES) -> None:
    """Unpack a zip file into a folder.

    Args:
        path: the zip file.
        folder: the folder, made if missing.
        most_bytes: bytes that its files may have in all. Besides, they must fit on the disk, be no more than 100,000,
            and no larger than 200 times the zip file where they exceed 1 GiB.

    Raises:
        ValueError: with one line, and nothing written, if the file is damaged or encrypted, exceeds a limit, or has
            links or members that would be written outside the folder.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> with zipfile.ZipFile(root / "bad.zip", "w") as archive:
        ...     archive.writestr("../evil.txt", "")
        >>> unpack_zip(root / "bad.zip", root / "here")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: ...bad.zip: its member '../evil.txt' would be written outside; not unpacked.
    """
    target = Path(folder).resolve()
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for member in members:
                if not (target / member.filename).resolve().is_relative_to(target):
                    raise ValueError(f"{path}: its member {member.filename!r} would be written outside; not unpacked.")
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise ValueError(f"{path}: its member {member.filename!r} is a link; not unpacked.")
            size = sum(member.file_size for member in members)
            target.mkdir(parents=True, exist_ok=True)
            limit = min(most_bytes, shutil.disk_usage(target).free // 10 * 9)
            if len(members) > _MOST_FILES:
                raise ValueError(f"{path}: has {len(members)} files; expected at most {_MOST_FILES}; not unpacked.")
            if size > limit or size > max(_SMALL, _RATIO * Path(path).stat().st_size):
                raise ValueError(
                    f"{path}: would take {size / 2**30:.3g} GiB unpacked; expected a zip file of at most "
                    f"{limit / 2**30:.3g} GiB, not {_RATIO} times as large as the file; not unpacked."
                )
            archive.extractall(target, members)  # which reads no more of a member than it announces
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:  # damaged, or encrypted
        raise ValueError(f"{path}: cannot be unpacked ({error}); expected a whole zip file.") from error
