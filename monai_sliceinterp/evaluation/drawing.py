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

"""Style, files, texts and colors that the pictures of an evaluation share."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from monai_sliceinterp.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["add_caption", "drawing", "method_colors", "wrap"]

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

_BASELINE_COLORS = {"linear": "#d9d9d9", "cubic": "#a6a6a6", "lanczos": "#595959"}
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9", "#332288", "#cc79a7", "#661100")
_COLORS += ("#999933", "#44aa99", "#882255", "#f0e442")  # for more than eight


@contextmanager
def drawing(
    path: str | Path, width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Iterator[Figure]:
    """Make a figure in the common style, and write it to a file when it is drawn.

    Args:
        path: the file; its suffix says the format (png, svg, pdf). Its folder must exist.
        width: width of the figure in inches.
        height: its height.
        layout: matplotlib's layout engine; None places nothing.

    Raises:
        ValueError: for an unknown format.
        ImportError: without matplotlib.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "line.svg"
        >>> with drawing(file, 2, 2) as figure:
        ...     _ = figure.subplots().plot([0, 1])
        >>> file.exists()
        True
    """
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "monai_sliceinterp[evaluation]"') from error
    with style.context(["default", _STYLE]):
        figure = Figure(figsize=(width, height), layout=layout)
        yield figure
        with atomic_path(path) as part:
            figure.savefig(part, dpi=_DPI, format=Path(path).suffix[1:].lower())


def add_caption(figure: Figure, text: str, width: float) -> None:
    """Add small text below a figure of a width in inches."""
    figure.supxlabel(textwrap.fill(text, int(width / 0.068)), fontsize=7.5, color="#404040")


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


def method_colors(names: Sequence[str]) -> dict[str, str]:
    """Choose a color for every method: grays for the baselines, for others by their order.

    Example:
        >>> method_colors(["mine", "cubic", "other"])
        {'mine': '#0072b2', 'cubic': '#a6a6a6', 'other': '#d55e00'}
    """
    others = [name for name in dict.fromkeys(names) if name not in _BASELINE_COLORS]
    chosen = {name: _COLORS[k % len(_COLORS)] for k, name in enumerate(others)}
    return {name: _BASELINE_COLORS.get(name) or chosen[name] for name in dict.fromkeys(names)}
