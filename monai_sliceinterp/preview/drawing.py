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

"""Figures that are drawn with the style that all pictures share, and written whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from monai_sliceinterp.extras import require_package
from monai_sliceinterp.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Sheet", "drawing", "require_matplotlib", "wrap"]

# The user's own settings of matplotlib stay out; names are shown as they are, also those with a dollar.
_STYLE: dict[str, Any] = {
    "font.size": 9,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#e0e0e0",
    "image.cmap": "gray",
}
_DPI = 130


def require_matplotlib() -> None:
    """Check that matplotlib is there, before work is done whose pictures need it."""
    require_package("matplotlib", "a picture", "plot")


@contextmanager
def drawing(
    path: str | Path, width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Iterator[Figure]:
    """Make a figure of a width and height in inches, and write it to a file when it is drawn.

    The suffix of the file says the format (png, svg, pdf); ``layout`` is matplotlib's, None places nothing.
    """
    require_matplotlib()
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]):
        figure = Figure(figsize=(width, height), layout=layout)
        yield figure
        with atomic_path(path) as part:
            figure.savefig(part, dpi=_DPI, format=Path(path).suffix[1:].lower())


class Sheet(NamedTuple):
    """Figure on which things have their places in inches from the top left corner."""

    figure: Figure
    width: float
    height: float

    def place(self, x: float, y: float, width: float, height: float) -> Axes:
        """Add axes."""
        bottom = 1 - (y + height) / self.height
        return self.figure.add_axes((x / self.width, bottom, width / self.width, height / self.height))

    def write(self, x: float, y: float, text: str, **style: Any) -> None:
        """Add a text."""
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)


def wrap(name: str, width: int) -> str:
    r"""Break a name into lines, where possible after a separator.

    Example:
        >>> wrap("asi_finetuned on ours", 9)
        'asi_\nfinetuned\non ours'
    """
    lines = [""]
    for piece in re.findall(rf"[^\s_/.,-]{{0,{width}}}[\s_/.,-]*", name):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.strip() for line in lines)
