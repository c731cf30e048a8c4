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

"""Progress of long computations: a bar for people, or lines of text for programs."""

from __future__ import annotations

import io
from typing import Any

from tqdm import tqdm

from monai_sliceinterp.checks import switch

__all__ = ["LINES", "ProgressLines", "progress_bar", "progress_setting"]

LINES = "lines"
"""Value of the option ``progress`` for lines of text."""

_SECONDS = 0.5


class ProgressLines(tqdm):
    """A progress bar of tqdm that prints lines to the standard output stream: ``progress: slices 12/160``.

    At most two lines a second, the first one at 0 and the last one at the number that was reached.

    Example:
        >>> with ProgressLines(total=3, desc="slices") as bar:
        ...     _ = bar.update(3)
        progress: slices 0/3
        progress: slices 3/3
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.shown = -1
        super().__init__(*args, **{"mininterval": _SECONDS, **kwargs, "file": io.StringIO()})

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Print a line; an empty message, with which tqdm wipes out a bar, prints nothing."""
        if msg != "" and self.shown != self.n:
            self.shown = self.n
            print(f"progress: {self.desc.removesuffix(': ')} {self.n}/{self.total}", flush=True)

    def close(self) -> None:
        """Print the last line, if it was not yet, and end."""
        if not self.disable:
            self.display()
        super().close()


def progress_setting(value: Any) -> bool | str:
    """Read the option ``progress``: true, false, or "lines".

    Raises:
        ValueError: if it is none of these.

    Example:
        >>> progress_setting("false"), progress_setting("lines")
        (False, 'lines')
    """
    return LINES if value == LINES else switch("progress", value)


def progress_bar(progress: bool | str, *args: Any, **kwargs: Any) -> tqdm:
    """Make a progress bar of tqdm, which clears itself at its end.

    Args:
        progress: whether there is one; "lines": lines of text, see :class:`ProgressLines`.
        args: arguments of tqdm.
        kwargs: its keyword arguments.

    Example:
        >>> list(progress_bar(False, range(3)))
        [0, 1, 2]
    """
    kind = ProgressLines if progress == LINES else tqdm
    return kind(*args, disable=not progress, leave=False, **kwargs)
