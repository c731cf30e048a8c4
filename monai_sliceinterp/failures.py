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

"""The report of the scans of a folder that failed."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from monai_sliceinterp.files import atomic_path, no_formula, printable

__all__ = ["FAILURES", "write_failures"]

FAILURES = "interp_failures.csv"
"""Name of the report, in the folder of the results."""


def write_failures(folder: str | Path, failures: Sequence[tuple[str, str]]) -> Path | None:
    """Write which scans of a run failed and why, as CSV; remove the report of an earlier run where none did.

    Args:
        folder: folder of the results; it must exist.
        failures: scans and reasons.

    Returns:
        The file, with the columns ``input`` and ``reason``; None where nothing failed.

    Raises:
        OSError: if it cannot be written.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> write_failures(folder, [("a.nii.gz", "no such file, or folder")]).read_text().splitlines()
        ['input,reason', 'a.nii.gz,"no such file, or folder"']
        >>> write_failures(folder, []) is None
        True
    """
    path = Path(folder) / FAILURES
    if not failures:
        path.unlink(missing_ok=True)
        return None
    with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("input", "reason"))
        writer.writerows([no_formula(printable(text)) for text in failure] for failure in failures)
    return path
