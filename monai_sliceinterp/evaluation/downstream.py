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

"""Downstream segmentation: how well a segmentation of the interpolated volume fits on the scan's own slices."""

from __future__ import annotations

import math
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from string import Formatter

import numpy as np
import torch
from monai.data import MetaTensor
from monai.metrics import compute_dice
from torch import Tensor

from monai_sliceinterp.geometry import OutputGrid
from monai_sliceinterp.labels_back import label_on_slices
from monai_sliceinterp.transforms import LoadVolume, reorient_like, save_nifti
from monai_sliceinterp.transforms.labels import whole_numbers

__all__ = ["check_segmenter", "dice_on_slices", "on_output_grid", "segment"]

_PLACES = {"input", "output"}


def check_segmenter(command: str) -> str:
    """Check a command that segments a volume.

    Args:
        command: words of a program and its arguments, as a shell would split them; ``{input}`` and ``{output}`` stand
            for NIfTI files. No shell runs it.

    Raises:
        ValueError: if there is no such program, or a place is missing or unknown.

    Example:
        >>> check_segmenter("no_such_program {input} {output}")
        Traceback (most recent call last):
        ...
        ValueError: --segment: there is no program 'no_such_program' here; expected for instance 'TotalSegmentator ...
    """
    expected = "expected for instance 'TotalSegmentator -i {input} -o {output} --ml'"
    try:
        named = {name for _, name, _, _ in Formatter().parse(command) if name is not None}
        program, *_ = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"--segment {command!r}: cannot be read; {expected}.") from error
    if named != _PLACES:
        raise ValueError(
            f"--segment {command!r}: needs {{input}} and {{output}} and nothing else in braces; {expected}."
        )
    if shutil.which(program) is None:
        raise ValueError(f"--segment: there is no program {program!r} here; {expected}.")
    return command


def segment(volume: MetaTensor, command: str) -> MetaTensor:
    """Segment a volume by a command, see :func:`check_segmenter`.

    Args:
        volume: ``(1, H, W, N)`` float, in the units of the scan, with its affine.
        command: the command.

    Returns:
        Labels ``(1, H, W, N)`` on the volume's grid.

    Raises:
        ValueError: with one line, if the volume is a time series, the command fails, or what it writes is no label on
            the volume's grid.

    Example:
        >>> import sys
        >>> copy = f"{sys.executable} -c 'import shutil, sys; shutil.copy(*sys.argv[1:])' {{input}} {{output}}"
        >>> segment(MetaTensor(torch.ones(1, 4, 4, 3)), copy).unique().int().tolist()
        [1]
    """
    if len(volume) != 1:
        raise ValueError(f"has {len(volume)} frames; expected one to segment.")
    with tempfile.TemporaryDirectory(prefix="sliceinterp-") as folder:
        files = {"input": str(Path(folder, "scan.nii.gz")), "output": str(Path(folder, "segmentation.nii.gz"))}
        save_nifti(MetaTensor(volume.as_tensor().float(), affine=volume.affine), files["input"])
        words = [word.format(**files) for word in shlex.split(command)]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode or not Path(files["output"]).is_file():
            lines = (done.stderr or done.stdout).strip().splitlines() or ["it wrote nothing"]
            raise ValueError(f"{words[0]} ended with status {done.returncode} and no segmentation: {lines[-1]}")
        label = whole_numbers(LoadVolume()(files["output"]), Path(words[0]))
    turned = reorient_like(label, volume)
    if turned.shape != volume.shape:
        raise ValueError(
            f"{words[0]} wrote labels of shape {tuple(turned.shape[1:])}; expected {tuple(volume.shape[1:])}."
        )
    return turned


def on_output_grid(pred: Tensor, thick: MetaTensor, factor: int) -> MetaTensor:
    """Give an interpolated volume ``(C, H, W, M)`` the affine that follows from that of the thick one, slices last."""
    grid = OutputGrid.from_factor(thick.shape[-1], factor)
    return MetaTensor(pred, affine=torch.as_tensor(grid.affine(thick.affine, 2)))


def dice_on_slices(label: MetaTensor, reference: MetaTensor, thick: MetaTensor) -> float:
    """Compute the mean Dice of two segmentations of thin volumes on the slices of a thick one.

    Both are brought onto these slices by :func:`monai_sliceinterp.labels_back.label_on_slices`.

    Args:
        label: ``(1, H, W, M)``, of the interpolated volume.
        reference: ``(1, H, W, N)``, of the true one.
        thick: ``(1, H, W, K)``, slices last, with its affine.

    Returns:
        Mean over the labels that the reference has on these slices but 0; NaN where it has none.

    Example:
        >>> truth = MetaTensor(torch.tensor([0, 1, 1, 1, 0]).expand(1, 4, 4, 5))
        >>> thick = MetaTensor(torch.zeros(1, 4, 4, 3), affine=torch.diag(torch.tensor([1.0, 1.0, 2.0, 1.0])))
        >>> dice_on_slices(MetaTensor(torch.tensor([1, 1, 1, 1, 0]).expand(1, 4, 4, 5)), truth, thick)
        0.666...
    """
    found, expected = (label_on_slices(each, thick).as_tensor()[None] for each in (label, reference))
    values = [value for value in expected.unique().tolist() if value != 0]
    if not values:
        return math.nan
    return float(np.mean([float(compute_dice(found == value, expected == value)) for value in values]))
