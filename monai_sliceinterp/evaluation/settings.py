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

"""Settings of an evaluation, which are the options of its command, and the volumes they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from monai_sliceinterp.checks import finite, one_of, positive_integer
from monai_sliceinterp.data import find_volumes
from monai_sliceinterp.evaluation.downstream import check_segmenter
from monai_sliceinterp.evaluation.methods import CLASSICAL, parse_method
from monai_sliceinterp.evaluation.protocols import PROTOCOLS, make_protocols
from monai_sliceinterp.extras import require_package
from monai_sliceinterp.files import file_stem
from monai_sliceinterp.metrics import BODY_THRESHOLD, METRICS, PERCEPTUAL_SCORES, SMALLEST_SLICE, Protocol

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


def _setting(default: Any, text: str, metavar: str | tuple[str, str] | None = None, *names: str, **parser: Any) -> Any:
    """Make a field from its default, its description, and what the option of the command needs beside its type."""
    return field(default=default, metadata={"text": text, "names": names, "parser": {"metavar": metavar, **parser}})


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of :func:`monai_sliceinterp.evaluation.run_evaluation`.

    Raises:
        ValueError: if a setting is out of range.

    Example:
        >>> settings = EvaluationSettings(["scans"], ["linear"], "out", factors=(2, 3))
        >>> [protocol.title for protocol in settings.make_protocols()]
        ['subsample x2', 'subsample x3']
    """

    data: Sequence[str] = _setting(MISSING, "volumes, folders of volumes, or DICOM folders", "PATH")
    methods: Sequence[str] = _setting(
        MISSING,
        "linear, cubic, lanczos, motion, blurred; the name of a bundle in ./bundles; the folder or zip file of one. "
        "NAME=METHOD names it; METHOD,OVERLAY lays a config of the bundle over its inference.json, METHOD,config=FILE "
        "any config; METHOD,ckpt=FILE takes other weights: small=saint,small or mine=bundles/asi,ckpt=runs/model.pt",
        "METHOD",
    )
    output_dir: str | Path = _setting("evaluation", "folder for all results", "DIR")
    factors: Sequence[int] = _setting((2, 4), "upsampling factors", "K", "--factor", "--factors")
    protocols: Sequence[str] = _setting(
        ("subsample",),
        f"how slices are left out: {', '.join(PROTOCOLS)}. subsample: every K-th slice is kept; fwhm: slabs as wide as "
        "the new spacing; random: slab, noise and first slice drawn for each volume, and all slices scored; "
        "leave_one_out: every second slice of any scan is synthesized, in both phases",
        "NAME",
        "--protocol",
        "--protocols",
    )
    subjects: Sequence[str] = _setting((), "evaluate files whose names start like this", "START")
    axis: int | None = _setting(None, "slice axis 0, 1 or 2; without it the one with the largest spacing", "A")
    window: tuple[float, float] | None = _setting(
        None,
        "intensities that are scored, in the scans' units; their width is the data range; without it -1024 2976 where "
        "a volume has values below -200, which is taken for CT, else its 1st and 99th percentile",
        ("LOW", "HIGH"),
    )
    crop: int = _setting(0, "evaluate the central N x N pixels, 0 for all", "N")
    body: float | None = _setting(
        None,
        f"also score inside the body: above HU ({BODY_THRESHOLD:g} where no number is given), holes filled",
        "HU",
        nargs="?",
        const=BODY_THRESHOLD,
    )
    quick: bool = _setting(False, "no VIF, no scores of all slices and of cuts across them, which take long")
    reconstruction: bool = _setting(
        False, "also score the observed slices as each bundle computes them where it must not copy them"
    )
    perceptual: Sequence[str] = _setting((), f"optional scores: {', '.join(PERCEPTUAL)}", "NAME")
    tests: Sequence[str] = _setting(
        ("psnr", "ssim", "psnr_body", "ssim_body", "dice"),
        "scores that methods are tested on and box plots are drawn of, where there are such; few, as p-values are "
        "corrected for their number; the ASI paper has psnr ssim_sagittal vif_sagittal",
        "NAME",
    )
    segment: str = _setting(
        "",
        "also score how a segmentation of the result fits on the thick volume's own slices (Dice): a command that "
        "segments a NIfTI file, such as 'TotalSegmentator -i {input} -o {output} --ml'",
        "COMMAND",
    )
    labels: str = _setting(
        "",
        "its reference: a folder with labels named as the volumes; without it the truth, segmented by the command",
        "DIR",
    )
    baselines: Sequence[str] = _setting(
        ("linear", "cubic"), "methods that the others are tested against, where they are evaluated", "METHOD"
    )
    workers: int = _setting(1, "processes; each loads all networks", "N")
    panels: int = _setting(2, "volumes that panels are drawn of", "N")
    sweep: int = _setting(8, "steps shown between two slices, 0 for none", "K")
    curve: str = _setting(
        "",
        "draw scores over a parameter of this name; methods on the curve are called SERIES@NUMBER: "
        "--curve lambda --methods asi@0.1=asi,ckpt=a.pt asi@1=asi,ckpt=b.pt",
        "NAME",
    )
    device: str = _setting("", "for instance cpu or cuda:1; without it the GPU if there is one")
    seed: int = _setting(0, "of the bootstrap and the random protocol")

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
        if self.body is not None:
            finite("body", self.body)
        methods = [parse_method(text) for text in self.methods]
        names = [method.name or (method.source if method.source in CLASSICAL else "") for method in methods]
        for name in self.baselines if all(names) else ():  # the name of a zip file's bundle is known later
            one_of("baseline", name, dict.fromkeys([*CLASSICAL, *names]))
        for name in self.perceptual:
            one_of("perceptual score", name, PERCEPTUAL)
        for name in self.tests:
            one_of("score", name, [key for key, metric in METRICS.items() if metric.better != "closer to 1"])
        if self.segment:
            check_segmenter(self.segment)
        elif self.labels:
            raise ValueError("labels are the reference of a segmentation; expected --segment COMMAND beside --labels.")
        self.make_protocols()

    def make_protocols(self) -> list[Protocol]:
        """Make the protocols, with their settings."""
        return make_protocols(self.protocols, self.factors, self.seed)

    @property
    def scoring(self) -> dict[str, Any]:
        """Settings that the scores of a volume depend on, beside volume, method and protocol."""
        return {
            name: getattr(self, name)
            for name in ("axis", "window", "crop", "body", "quick", "reconstruction", "perceptual", "segment", "labels")
        }

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
        """Check that the packages that are needed in the end are installed, before hours are spent."""
        for package in ("matplotlib", "jinja2"):
            require_package(package, "the evaluation", "evaluation")


EvaluationSettings.__doc__ = f"{EvaluationSettings.__doc__}\n    Attributes:\n" + "".join(
    f"        {entry.name}: {entry.metadata['text']}.\n" for entry in fields(EvaluationSettings)
)
