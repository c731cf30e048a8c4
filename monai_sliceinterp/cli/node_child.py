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

"""The process that interpolates one series for the PACS node: ``sliceinterp``, and UIDs that are the same each time."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from monai_sliceinterp.cli.main import main as sliceinterp
from monai_sliceinterp.dicom_node.uids import with_derived_uids

__all__ = ["main"]


def _end_with_parent() -> None:
    """End this process when the node does: its end of the pipe on the standard input is closed then."""

    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(argv: Sequence[str]) -> int:
    """Interpolate a series.

    Args:
        argv: folder with the series, folder to write to, and options of ``sliceinterp``.

    Returns:
        The exit status of ``sliceinterp``. The interpolated series is in the folder ``result`` of that to write to;
        it is not there if there is nothing to interpolate.
    """
    source, out = Path(argv[0]), Path(argv[1])
    status = sliceinterp(["interpolate", *argv[2:], "--format", "dicom", "-o", str(out), "--", str(source)])
    written = out / f"{source.name}_interp"
    if status == 0 and written.is_dir():
        from monai_sliceinterp.command_line import report

        part = out / "part"
        try:
            part.mkdir()
            with_derived_uids(sorted(written.glob("*.dcm")), sorted(source.glob("*.dcm")), part)
            os.replace(part, out / "result")
        except OSError as error:
            report(error)
            return 1
    return status


if __name__ == "__main__":
    _end_with_parent()
    sys.exit(main(sys.argv[1:]))
