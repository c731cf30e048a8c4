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

"""Errors of DICOM input."""

from __future__ import annotations

__all__ = ["DicomError", "reason"]


class DicomError(ValueError):
    """What is wrong with a DICOM series, in one line without the path the user gave.

    Example:
        >>> raise DicomError("has a single slice.")
        Traceback (most recent call last):
        ...
        monai_sliceinterp.dicom.errors.DicomError: has a single slice.
    """


def reason(error: BaseException) -> str:
    r"""Tell what a reader complains of, in one line without the full stop.

    Readers of ITK put the place in their source first and the cause last.

    Example:
        >>> reason(RuntimeError("somewhere in a reader:\nunexpected end of file.\n"))
        'unexpected end of file'
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip().rstrip(".") if lines else type(error).__name__
