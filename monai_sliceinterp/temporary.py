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

"""Temporary files and folders beside their targets, and the sweep of those that killed runs have left."""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import uuid
import zlib
from pathlib import Path

import psutil

__all__ = ["discard", "sweep", "temporary_name"]

_NAME = re.compile(r"\.(.*)\.(part|old)-([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}(\..*)?", re.DOTALL)

_SECONDS = 2
"""A process may seem to have begun this much later or earlier: clocks are set."""

_SHOWN = 40
"""Characters of a target's name in that of its temporary file; names have to stay short."""


def temporary_name(target: Path, stem: str, kind: str = "part") -> Path:
    """Make up a hidden name beside a file or folder, which tells the machine and the process that it belongs to.

    Args:
        target: the file or folder; the temporary name ends like it.
        stem: its name without the suffix.
        kind: "part": it becomes the target; "old": it was the target, and is to be discarded.

    Example:
        >>> temporary_name(Path("out/scan_interp.nii.gz"), "scan_interp").name
        '.scan_interp.part-...-....nii.gz'
    """
    pid = os.getpid()
    owner = f"{_machine()}-{pid}-{int(psutil.Process(pid).create_time())}-{uuid.uuid4().hex[:8]}"
    shown = stem if kind == "old" else stem[:_SHOWN]
    return target.with_name(f".{shown}.{kind}-{owner}{target.name[len(stem) :]}")


def sweep(folder: str | Path) -> list[str]:
    """Remove the temporary files and folders of dead processes of this machine from a folder, not those below it.

    What a killed run has moved aside is put back where its replacement has not come.

    Args:
        folder: where runs write to; it need not exist.

    Returns:
        The names that are gone.

    Example:
        >>> sweep("nowhere")
        []
    """
    root, gone = Path(folder), []
    for name in sorted(os.listdir(root)) if root.is_dir() else []:
        match = _NAME.fullmatch(name)
        if match is None or match[3] != _machine() or _is_alive(int(match[4]), int(match[5])):
            continue
        target = root / match[1]
        if match[2] == "old" and not os.path.lexists(target):
            os.replace(root / name, target)
        else:
            discard(root / name)
        gone.append(name)
    return gone


def discard(path: Path) -> None:
    """Remove a file, a link or a folder with all it holds, if it is there and may be removed.

    Example:
        >>> discard(Path("nowhere"))
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            path.unlink(missing_ok=True)
        except OSError:  # of somebody else's
            return


@functools.cache
def _machine() -> str:
    """Eight digits for the machine, or the container: process numbers mean something within it alone."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = 0
    return f"{zlib.crc32(f'{platform.node()} {uuid.getnode()} {space}'.encode()):08x}"


def _is_alive(pid: int, start: int) -> bool:
    """Whether the process with this number is still the one that began at this time."""
    try:
        return abs(int(psutil.Process(pid).create_time()) - start) <= _SECONDS
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # it is there, and somebody else's
        return True
