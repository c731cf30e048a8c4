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

"""What the protocols and metrics of an evaluation are, in words."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["measurement_notes"]

_PROTOCOL_NOTES = {
    "subsample": "subsample xK: every K-th slice is kept as it is, the others are left out.",
    "fwhm": "fwhm xK: slices are averaged with a Gaussian profile, then every K-th is kept. The full width at half "
    "maximum is the thick slices' spacing where no width is named.",
    "random": "random xK: the width of the slab, the first slice and the noise are drawn for each volume, the same for "
    "every method. All slices are scored, because no thick slice shows a true one as it is.",
    "leave-one-out": "leave-one-out: every second slice of the volume is left out, in one run the odd and in another "
    "the even ones. This needs no thin slices; the spacing of the result is the scan's own.",
}
_METRIC_NOTES = {
    "psnr": "PSNR: from the mean squared error over all synthesized slices of a volume together, not averaged slice by "
    "slice; larger is better.",
    "ssim": "SSIM: mean structural similarity of the slices, a Gaussian window of 11 pixels; larger is better.",
    "rmse": "RMSE: root of the mean squared error, in units of the data range; smaller is better.",
    "mse": "MSE: mean squared error, in units of the squared data range; smaller is better.",
    "vif": "VIF: mean visual information fidelity of the slices in the pixel domain; 1 is a perfect slice, larger is "
    "better.",
    "sharpness": "Sharpness: mean gradient magnitude of the slices over that of the true ones; 1 is as sharp, less is "
    "blurred, more is noise or edges that are not there.",
    "lpips": "LPIPS: mean learned perceptual distance of the slices; smaller is better.",
    "niqe": "NIQE: natural image quality evaluator, which knows no truth; smaller is better.",
    "seconds": "Time: of the interpolation of one volume; it depends on the machine.",
    "memory": "Memory: peak during the interpolation of one volume, in MiB; it depends on the machine.",
}
_PART_NOTES = {
    "": "Scores without a further name are over the synthesized slices only, in the slices' own plane.",
    "volume": "Whole volume: over all slices, observed ones included.",
    "body": "Inside the body: over the synthesized slices' voxels that are tissue only.",
    "coronal": "Coronal and sagittal cuts: the volume cut along the two in-plane axes, so that observed and "
    "synthesized slices are rows of one image.",
}


def measurement_notes(protocols: Sequence[str], metrics: Sequence[str]) -> list[str]:
    """Say how volumes were degraded and scored, for readers of a report.

    Args:
        protocols: titles, see :func:`monai_sliceinterp.evaluation.protocols.protocol_titles`.
        metrics: names of the scores, see :class:`monai_sliceinterp.evaluation.Score`.

    Returns:
        Sentences: in general, on each kind of protocol, on each metric, and on what scores are over.

    Example:
        >>> for note in measurement_notes(["subsample x2", "subsample x4"], ["mse"])[1:4]:
        ...     print(note)
        subsample xK: every K-th slice is kept as it is, the others are left out.
        Intensities are scaled to the data range 0 to 1 and clipped to it, the truth and all results alike.
        MSE: mean squared error, in units of the squared data range; smaller is better.
    """
    kinds = {metric.partition("_")[0] for metric in metrics}
    scored = [metric for metric in metrics if metric not in ("seconds", "memory")]
    parts = {metric.partition("_")[2].replace("sagittal", "coronal") for metric in scored}
    return [
        "Volumes are degraded by a protocol, every method restores the slices from the same thick volume, and the "
        "result is compared with the slices of the original volume.",
        *(text for name, text in _PROTOCOL_NOTES.items() if any(title.startswith(name) for title in protocols)),
        "Intensities are scaled to the data range 0 to 1 and clipped to it, the truth and all results alike.",
        *(text for name, text in _METRIC_NOTES.items() if name in kinds),
        *(text for name, text in _PART_NOTES.items() if name in parts),
    ]
