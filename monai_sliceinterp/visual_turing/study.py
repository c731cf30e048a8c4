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

"""The questions of a visual Turing test: stacks of the same slices, true and interpolated, in random order."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from monai_sliceinterp.checks import one_of, positive_integer
from monai_sliceinterp.evaluation.methods import Method, find_device, find_methods
from monai_sliceinterp.evaluation.settings import EvaluationSettings, VolumeItem
from monai_sliceinterp.evaluation.volume import ThinVolume, interpolate_unit, load_thin
from monai_sliceinterp.geometry import axis_spacing
from monai_sliceinterp.metrics import Protocol
from monai_sliceinterp.preview.planes import plane_axes, plane_view
from monai_sliceinterp.preview.windows import display_windows
from monai_sliceinterp.transforms.intensity import unscale_from_unit

__all__ = ["ASKED", "PROTOCOLS", "TRUTH", "Question", "Study", "StudySettings", "make_study"]

TRUTH = "truth"
"""Name of the true slices among the candidates, which no method can have."""

ASKED = {
    "preference": "Which stack shows the anatomy best?",
    "real": "Which stack is the real scan?",
}
"""What readers are asked, by name. The paper on VTS (section 4) asks for the image of the highest visibility."""

PROTOCOLS = ("subsample", "fwhm", "random")
"""Ways to make a thin scan thick, see :func:`monai_sliceinterp.evaluation.make_protocols`."""

_LEAST_DETAIL = 0.5
"""Slices with less than this share of the median's detail, at the ends of a scan, are not asked about."""

_CONTEXT = 4
"""Thick slices on either side of a stack that methods see beyond it, where the scan has them."""


@dataclass(frozen=True)
class StudySettings:
    """Settings of :func:`make_study`.

    Attributes:
        data: thin scans: files, folders of them, or DICOM folders.
        methods: as :func:`monai_sliceinterp.evaluation.find_method` reads them.
        num_questions: number of questions; 50 in the paper on VTS.
        num_slices: slices of a stack; 1 for single images, as in the paper.
        factor: upsampling factor.
        protocol: one of :data:`PROTOCOLS`.
        ask: what is asked, a key of :data:`ASKED`.
        with_truth: whether the true slices are among the candidates.
        axis: slice axis 0, 1 or 2; None: what the scan says, or the axis of the largest spacing.
        window: intensities that are shown black and white, in the scans' units; None: body or, at random, lung for CT
            that shows lungs; from the 1st to the 99th percentile for others.
        crop: pixels along the edges of the central part that is shown, 0 for all.
        device: where networks compute; empty: a GPU if there is one.
        seed: of everything that is drawn; None: nobody can tell.

    Raises:
        ValueError: if a setting is out of range.

    Example:
        >>> StudySettings(["scans"], ["linear"], num_questions=0)
        Traceback (most recent call last):
        ...
        ValueError: questions must be a positive integer, got 0.
    """

    data: Sequence[str | Path]
    methods: Sequence[str]
    num_questions: int = 20
    num_slices: int = 9
    factor: int = 4
    protocol: str = "subsample"
    ask: str = "preference"
    with_truth: bool = True
    axis: int | None = None
    window: tuple[float, float] | None = None
    crop: int = 0
    device: str = ""
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without the scans."""
        positive_integer("questions", self.num_questions)
        positive_integer("slices", self.num_slices)
        positive_integer("factor", self.factor, 2)
        one_of("protocol", self.protocol, PROTOCOLS)
        one_of("ask", self.ask, ASKED)
        if self.ask == "real" and not self.with_truth:
            raise ValueError("nothing is real without the true slices; expected --ask preference with --no-truth.")
        self.evaluation()

    def evaluation(self) -> EvaluationSettings:
        """Return the same settings for the parts of the evaluation that find, load and degrade scans."""
        return EvaluationSettings(
            [str(path) for path in self.data],
            self.methods,
            factors=(self.factor,),
            protocols=(self.protocol,),
            axis=self.axis,
            window=self.window,
            crop=self.crop,
        )


@dataclass(frozen=True)
class Question:
    """Question to readers.

    Attributes:
        stacks: ``(M, K, H, W)`` uint8: candidates, slices, rows from the top, columns from the left.
        aspect: height of a pixel over its width.
        key: what the reader must not know: "scan", "axis" of its slices, "slices" (first and last), "window", and
            "candidates" in the order
            in which they are shown.
    """

    stacks: NDArray[np.uint8]
    aspect: float
    key: dict[str, Any]


@dataclass(frozen=True)
class Study:
    """Visual Turing test.

    Attributes:
        identity: random text that page, key and answers share.
        ask: key of :data:`ASKED`.
        questions: the questions, in the order in which they are asked.
        key: what the key tells beside the questions.
    """

    identity: str
    ask: str
    questions: list[Question]
    key: dict[str, Any]


class _Place(NamedTuple):
    """Where a question's stack lies."""

    item: VolumeItem
    where: float  # fraction of the places that the scan has
    shown: float  # fraction of the windows
    order: NDArray[np.intp]  # of the candidates


def make_study(settings: StudySettings, report: Callable[[str], None] = lambda text: None) -> Study:
    """Draw the questions of a visual Turing test, as the paper on VTS (section 4) describes it.

    In each question the same slices of one scan are shown by all candidates in random order, equal in size, window and
    rounding: the true slices, and what each method makes of the scan after slices were left out. The middle slice of a
    stack is one that had been left out, and not one at the ends that shows little. Scans take turns; places, windows,
    and the order of candidates and questions are drawn. Methods see a few thick slices beyond the stack, not the whole
    scan.

    Args:
        settings: what is asked about what.
        report: called with the name of each step.

    Raises:
        ValueError: with one line, if a scan is unreadable or has too few slices, or a method is unknown.

    Example:
        >>> import tempfile
        >>> from monai_sliceinterp.data import write_phantoms
        >>> paths = write_phantoms(tempfile.mkdtemp(), "head", range(2), shape=(24, 20, 13), spacing=(8, 8, 8))
        >>> study = make_study(StudySettings(paths, ["linear"], num_questions=3, num_slices=5, factor=2, seed=0))
        >>> study.questions[0].stacks.shape, sorted(study.questions[0].key["candidates"])
        ((2, 5, 20, 24), ['linear', 'truth'])
    """
    evaluation = settings.evaluation()
    items = evaluation.volumes()
    methods = find_methods(settings.methods, find_device(settings.device))
    names = [TRUTH] * settings.with_truth + [method.name for method in methods]
    if len(names) < 2:
        raise ValueError("there is one candidate alone; expected two or more: true slices and methods.")
    seed = secrets.randbits(63) if settings.seed is None else settings.seed
    rng = np.random.default_rng(seed)
    identity = rng.bytes(8).hex()
    turns = [items[k] for k in rng.permutation(len(items))]
    drawn: dict[str, list[tuple[int, _Place]]] = defaultdict(list)
    places = rng.permutation(settings.num_questions)
    for k, place in enumerate(places):
        item = turns[k % len(turns)]
        drawn[item.path].append((int(place), _Place(item, rng.random(), rng.random(), rng.permutation(len(names)))))
    questions: dict[int, Question] = {}
    (protocol,) = evaluation.make_protocols()
    for path, asked in drawn.items():
        thin = load_thin(path, evaluation)
        windows = _windows(thin, settings)
        for number, place in asked:
            report(f"{place.item.name}, slices along axis {thin.axis}")
            questions[number] = _question(thin, windows, place, protocol, methods, settings)
    key = {"seed": seed, "factor": settings.factor, "protocol": protocol.title}
    return Study(identity, settings.ask, [questions[k] for k in sorted(questions)], key)


def _windows(thin: ThinVolume, settings: StudySettings) -> list[tuple[float, float]]:
    """Return the windows in which a scan may be shown, in its units."""
    if settings.window is not None or thin.window_from != "HU":
        return [thin.window]
    voxels = unscale_from_unit(thin.image.as_tensor(), *thin.window)
    return [(window.low, window.high) for window in display_windows(voxels[0])]


def _question(
    thin: ThinVolume,
    windows: Sequence[tuple[float, float]],
    place: _Place,
    protocol: Protocol,
    methods: Sequence[Method],
    settings: StudySettings,
) -> Question:
    """Make the stacks of a question: the part of the scan around them alone is degraded and interpolated."""
    count, factor, path = settings.num_slices, settings.factor, place.item.path
    total = thin.image.shape[-1]
    least = max(count, 2) + 2 * factor
    if total < least:
        raise ValueError(f"{path}: has {total} slices; expected {least} or more, or fewer --slices or --factor.")
    # thick slices are counted from the first one that is taken; the middle slice must not be at one of them
    window = windows[int(place.shown * len(windows))]
    detail = _detail(thin, window)
    firsts = [k for k in range(factor, total - factor - count + 1) if (k + count // 2) % factor]
    firsts = [k for k in firsts if detail[k + count // 2] >= _LEAST_DETAIL * np.median(detail)]
    if not firsts:
        raise ValueError(f"{path}: has {total} slices, none to ask about; expected fewer --slices or --factor.")
    first = firsts[int(place.where * len(firsts))]
    low = max(0, factor * (first // factor - _CONTEXT))
    part = MetaTensor(thin.image.as_tensor()[..., low : first + count + _CONTEXT * factor]).copy_meta_from(thin.image)
    try:
        trial = protocol.trial(part, place.item.number)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    begin = first - low - (part.shape[-1] - trial.truth.shape[-1])
    shown = slice(begin, begin + count)
    volumes = {TRUTH: trial.truth.as_tensor()} if settings.with_truth else {}
    for method in methods:
        volumes[method.name], _, _ = interpolate_unit(method, trial.thick, factor, thin.window)
    names = [list(volumes)[k] for k in place.order]
    stacks = []
    for name in names:
        values = unscale_from_unit(volumes[name][0, ..., shown], *thin.window).numpy()
        gray = _gray(values, window)
        stacks.append(np.stack([plane_view(gray, thin.image.affine, 2, k).image for k in range(count)]))
    spacing, (rows, columns) = axis_spacing(thin.image.affine), plane_axes(thin.image.affine, 2)
    key = {
        "scan": place.item.name,
        "axis": thin.axis,
        "slices": [first, first + count - 1],
        "window": list(window),
        "candidates": names,
    }
    return Question(np.stack(stacks).astype(np.uint8), float(spacing[rows] / spacing[columns]), key)


def _gray(values: NDArray[np.floating], window: tuple[float, float]) -> NDArray[np.uint8]:
    """Show intensities in a window as gray values."""
    return np.clip(np.round((values - window[0]) / (window[1] - window[0]) * 255), 0, 255).astype(np.uint8)


def _detail(thin: ThinVolume, window: tuple[float, float]) -> NDArray[np.float64]:
    """Measure how much each slice shows in a window: the mean difference of pixels that are neighbors."""
    slices = (
        _gray(unscale_from_unit(part, *thin.window).numpy(), window) for part in thin.image.as_tensor()[0].unbind(-1)
    )
    return np.array([np.abs(np.diff(part.astype(float), axis=0)).mean() for part in slices])
