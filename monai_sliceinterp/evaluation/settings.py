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

"""Settings of an evaluation, and the volumes they name."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_sliceinterp.checks import one_of, positive_integer
from monai_sliceinterp.data import find_volumes
from monai_sliceinterp.evaluation.protocols import make_protocols
from monai_sliceinterp.files import file_stem
from monai_sliceinterp.metrics import METRICS, PERCEPTUAL_SCORES, SMALLEST_SLICE, Protocol

__all__ = ["HU_WINDOW", "PERCEPTUAL", "EvaluationSettings", "VolumeItem"]

HU_WINDOW = (-1024.0, 2976.0)
"""Range of CT intensities over which is scored where none is given, in HU: air to dense bone, a data range of 4000. One
range for all methods, so that their scores compare, whatever the bundles are trained on."""

PERCEPTUAL = tuple(name for name in PERCEPTUAL_SCORES if name in METRICS)
"""Optional scores that can be asked for."""

_SMALLEST = SMALLEST_SLICE["ssim"]


@dataclass(frozen=True)
class VolumeItem:
    """Volume that is evaluated.

    Attributes:
        path: file or DICOM folder.
        name: name in tables and files, different for each volume.
        group: name of the folder it lies in.
        number: place among the volumes, from which random protocols draw.
    """

    path: str
    name: str
    group: str
    number: int


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of :func:`monai_sliceinterp.evaluation.harness.run_evaluation`.

    Attributes:
        data: volumes, folders that are looked through recursively, or DICOM folders.
        methods: see :func:`monai_sliceinterp.evaluation.methods.parse_method`.
        output_dir: folder for all results.
        factors: upsampling factors.
        protocols: see :func:`monai_sliceinterp.evaluation.protocols.make_protocols`.
        subjects: beginnings of the names of the files that are evaluated; all where empty.
        axis: through-plane axis 0, 1 or 2; None: the one with the largest spacing.
        window: intensities that become 0 and 1, in the scans' units. None: a volume with intensities below -200 is
            taken as CT, with the window -1024 to 2976 HU; any other spans its 1st to 99th percentile.
        crop: evaluate the central ``crop`` x ``crop`` pixels; 0: all.
        body: intensity above which is tissue, for scores inside the body; None: there are none.
        quick: leave out VIF and the scores of all slices and of cuts across them, which take long.
        perceptual: scores by pretrained networks and the like, see :mod:`monai_sliceinterp.metrics.perceptual`.
        baselines: methods which the others are tested against, if they are among the methods.
        workers: processes among which the volumes are shared.
        panels: of how many volumes panels are drawn, from the first on.
        sweep: factor by which the slices between two neighbors are shown; 0: not at all.
        curve: name of a parameter; methods called SERIES@NUMBER are then drawn as curves over it.
        device: where networks compute, for instance "cpu" or "cuda:1"; empty: the GPU if there is one.
        seed: of the bootstrap and of random protocols.

    Raises:
        ValueError: if a setting is out of range.

    Example:
        >>> settings = EvaluationSettings(["scans"], ["linear"], "out", factors=(2, 3))
        >>> settings.titles
        ['subsample x2', 'subsample x3']
    """

    data: tuple[str, ...] | list[str]
    methods: tuple[str, ...] | list[str]
    output_dir: str | Path
    factors: tuple[int, ...] | list[int] = (2, 4)
    protocols: tuple[str, ...] | list[str] = ("subsample",)
    subjects: tuple[str, ...] | list[str] = ()
    axis: int | None = None
    window: tuple[float, float] | None = None
    crop: int = 0
    body: float | None = None
    quick: bool = False
    perceptual: tuple[str, ...] | list[str] = ()
    baselines: tuple[str, ...] | list[str] = ("linear", "cubic")
    workers: int = 1
    panels: int = 2
    sweep: int = 8
    curve: str = ""
    device: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what can be checked without the volumes."""
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ValueError(f"the window must be two ascending intensities, got {self.window!r}.")
        if self.crop < 0 or 0 < self.crop < _SMALLEST:
            raise ValueError(f"crop must be 0 or at least {_SMALLEST} pixels (SSIM's window), got {self.crop}.")
        positive_integer("workers", self.workers)
        positive_integer("panels", self.panels, 0)
        if self.sweep != 0:
            positive_integer("sweep", self.sweep, 2, ", or 0 for none")
        if self.axis not in (None, 0, 1, 2):
            raise ValueError(f"axis must be 0, 1 or 2, got {self.axis!r}.")
        for name in self.perceptual:
            one_of("perceptual score", name, PERCEPTUAL)
        self.make_protocols()

    def make_protocols(self) -> list[Protocol]:
        """Make the protocols, with their settings."""
        return make_protocols(self.protocols, self.factors, self.seed)

    @property
    def titles(self) -> list[str]:
        """Names of the protocols."""
        return [protocol.title for protocol in self.make_protocols()]

    @property
    def scoring(self) -> dict[str, Any]:
        """Settings that the scores of a volume depend on, beside volume, method and protocol."""
        names = ("axis", "window", "crop", "body", "quick", "perceptual")
        return {name: getattr(self, name) for name in names}

    def volumes(self) -> list[VolumeItem]:
        """List the volumes.

        Raises:
            ValueError: if there is none, or a subject has none.
        """
        paths = list(dict.fromkeys(find_volumes(list(self.data), recursive=True, distinct=False)))
        names = [Path(path).name for path in paths]
        for subject in self.subjects:
            if not any(name.startswith(subject) for name in names):
                where = ", ".join(map(str, self.data))
                raise ValueError(f"{where}: no file name starts with {subject!r}; expected the subjects of the data.")
        if self.subjects:
            paths = [path for path in paths if Path(path).name.startswith(tuple(self.subjects))]
        stems = [file_stem(path) for path in paths]
        items = []
        for number, (path, stem) in enumerate(zip(paths, stems, strict=True)):
            name = stem
            if stems.count(stem) > 1:  # told apart by their folders
                name = "_".join([*Path(path).resolve().parent.parts[-2:], Path(path).name.replace(".", "_")])
            items.append(VolumeItem(path, name, Path(path).resolve().parent.name, number))
        seen: dict[str, str] = {}
        for item in items:
            other = seen.setdefault(item.name, item.path)
            if other != item.path:
                raise ValueError(f"{item.path}: cannot be told from {other} by name; rename it or its folder.")
        return items

    def require_packages(self) -> None:
        """Check that the packages that are needed in the end are installed, before hours are spent.

        Raises:
            ImportError: if a package is missing.
        """
        for package in ("matplotlib", "jinja2", "psutil"):
            if importlib.util.find_spec(package) is None:
                raise ImportError(
                    f'the evaluation needs {package}; install it by: pip install "monai_sliceinterp[evaluation]"'
                )
