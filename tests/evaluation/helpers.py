# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Tables of scores, and figures as they would be written: their texts, and that these are in place."""

import csv

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

METHODS = ["linear", "cubic", "lanczos", "asi", "saint", "hrinet", "vts"]
LONG = "vts_small_finetuned_on_our_own_data_of_2024"


def rendered_texts(figure):
    """Texts of a figure that are drawn, each with the pixels it covers."""
    boxes = {}
    draw = Text.draw

    def watch(text, renderer, *args, **kwargs):
        if text.get_visible() and text.get_text().strip():
            boxes[text] = (text.get_text(), text.get_window_extent(renderer))
        draw(text, renderer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", watch)
        FigureCanvasAgg(figure).draw()
    return list(boxes.values())


def overlap(first, second):
    """Whether two boxes share more than a pixel in both directions."""
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    return width >= 1 and height >= 1


def check_layout(figure):
    """All texts are taken literally, inside the figure and apart from each other; return them."""
    boxes = rendered_texts(figure)
    assert not [text for text in figure.findobj(Text) if "$" in text.get_text() and text.get_parse_math()]
    for k, (text, box) in enumerate(boxes):
        assert box.x0 >= -1 and box.y0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text
        for other, second in boxes[:k]:
            assert not overlap(box, second), (text, other)
    return boxes


def words(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def rows(values, metric="psnr", protocol="p", group="g", **others):
    """Scores of volumes v0, v1, ... by method, None where it failed; others: one value, or one for each volume."""
    return [
        {"volume": f"v{k}", "group": group, "protocol": protocol, "method": method, metric: value}
        | {name: other[k] if isinstance(other, list) else other for name, other in others.items()}
        for method, series in values.items()
        for k, value in enumerate(series)
        if value is not None
    ]


class FakeMetric:
    """A perceptual score that notes the pairs it is given since each reset; the number of resets."""

    def __init__(self):
        self.seen = []

    def reset(self):
        self.seen.append([])

    def __call__(self, pred, truth):
        self.seen[-1].append((pred, truth))

    def aggregate(self):
        return torch.tensor(float(len(self.seen)))


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def cells(line):
    """The cells of a line of a Markdown table."""
    return [cell.strip() for cell in line.strip("|").split("|")]
