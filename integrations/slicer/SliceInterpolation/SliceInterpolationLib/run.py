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

"""A run of the command on one scan, in a temporary folder that goes when it ends, however it ends."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from SliceInterpolationLib.command import Progress, Settings, clean_environment, command_arguments, read_progress
from SliceInterpolationLib.process import CommandProcess

__all__ = ["Run"]

_SCAN = "scan.nii"
_LABEL = "label.nii"


class Run:
    """A run of the command on one scan.

    Args:
        command: how to call the command, see :func:`SliceInterpolationLib.command.find_command`.
        settings: what the user asks for.
        write: is given the files of the scan and of its segmentation, writes them, and tells whether there is a
            segmentation.
        environment: the environment of Slicer, of which the command gets what is not Slicer's own.
        slicer_home: folder of Slicer.
        parent: folder for the temporary one; empty: that of the system.

    Attributes:
        lines: what the command printed, but for its progress.
        progress: how far it is; None where it counts nothing.

    Raises:
        ValueError: with one line, if the input cannot be written.
        OSError: if the command cannot be started, or the disk is full.
    """

    def __init__(
        self,
        command: Sequence[str],
        settings: Settings,
        write: Callable[[str, str], bool],
        environment: Mapping[str, str],
        slicer_home: str = "",
        parent: str = "",
    ) -> None:
        self.lines: list[str] = []
        self.progress: Progress | None = None
        self.folder = tempfile.mkdtemp(prefix="sliceinterp-", dir=parent or None)
        try:
            scan, label = (str(Path(self.folder, name)) for name in (_SCAN, _LABEL))
            arguments = command_arguments(settings, scan, self._path("out"), label if write(scan, label) else "")
            Path(self._path("tmp")).mkdir()
            clean = clean_environment(environment, slicer_home, self._path("tmp"))
            self.process = CommandProcess([*command, *arguments], clean, self.folder)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _path(self, name: str) -> str:
        return str(Path(self.folder, name))

    def poll(self) -> bool:
        """Read what it printed; whether it has ended."""
        status = self.process.status()
        for line in self.process.new_lines():
            progress = read_progress(line)
            if progress is None:
                self.progress = None
                for path, shown in ((self._path("out") + os.sep, ""), (self._path(_SCAN), "scan")):
                    line = line.replace(path, shown)
                self.lines.append(line)
            else:
                self.progress = progress
        return status is not None

    def message(self) -> str:
        """Return the line that says most: the first error, else the last line."""
        errors = [line for line in self.lines if line.startswith("error: ")]
        return (errors or self.lines[-1:] or ["sliceinterp printed nothing"])[0]

    def results(self) -> dict[str, str]:
        """Return the files that it wrote: ``volume``, ``synthesized`` and, of a segmentation, ``label``.

        Nothing is written of a scan whose slices are as close as its pixels: the message says so.

        Raises:
            RuntimeError: with the command's own line, if it failed.
        """
        status = self.process.wait()
        self.poll()
        if status != 0:
            raise RuntimeError(self.message() if status > 0 else f"sliceinterp was ended by signal {-status}.")
        names = {
            "volume": "scan_interp.nii.gz",
            "synthesized": "scan_interp_provenance.nii.gz",
            "label": "scan_interp_label.nii.gz",
        }
        files = {key: str(Path(self._path("out"), name)) for key, name in names.items()}
        return {key: file for key, file in files.items() if Path(file).is_file()}

    def close(self) -> None:
        """End it if it runs, with all that it started, and remove its folder and what is in it."""
        try:
            self.process.kill()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
