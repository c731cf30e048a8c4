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

"""How well a method does on one scan: its own slices, left out one after another, are the truth."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.networks.utils import eval_mode
from monai.transforms import MapTransform
from monai.utils import CommonKeys
from torch import Tensor, nn

from monai_sliceinterp.files import atomic_path, file_stem
from monai_sliceinterp.inferers import SliceInterpolationInferer, SplineSliceInferer
from monai_sliceinterp.metrics import SMALLEST_SLICE, slice_score, synthesized_pairs
from monai_sliceinterp.transforms import FWHMDownsample

__all__ = [
    "LeaveOneOutQualityD",
    "LeaveOneOutQualityDict",
    "LeaveOneOutQualityd",
    "leave_one_out_quality",
]


@torch.no_grad()
def leave_one_out_quality(
    volume: Tensor,
    inferer: SliceInterpolationInferer,
    network: Callable[..., Any] | None = None,
    data_range: float = 1.0,
) -> dict[str, Any]:
    """Leave out every second slice, interpolate it from its neighbors, and compare with linear interpolation.

    Every slice but the first and the last is left out once. The distance bridged is twice that of the scan, so the
    error is larger than that of the slices the scan is given; what counts is which method is closer to the truth, and
    by how much. A method that restores slabs, too, is compared with slices as thick as they were.

    Args:
        volume: ``(1, C, H, W, N)``, slices last, scaled to [0, ``data_range``]; what lies outside is cut off.
        inferer: the method's inferer; its factor and spacing do not matter.
        network: the method's network.
        data_range: largest possible intensity difference.

    Returns:
        "psnr" (dB) and "ssim" of the method over all slices left out, "linear_psnr" and "linear_ssim" of linear
        interpolation, "gain" (dB) of the method, and "slices", how many were left out.

    Raises:
        ValueError: if there are fewer than 3 slices.

    Example:
        >>> ramp = torch.linspace(0, 1, 5).expand(1, 1, 16, 16, 5)
        >>> quality = leave_one_out_quality(ramp, SplineSliceInferer(mode="lanczos"))
        >>> quality["slices"], quality["gain"] < 0
        (3, True)
    """
    count = volume.shape[-1]
    if count < 3:
        raise ValueError(f"to leave slices out takes at least 3 of them, the volume has {count}.")
    method = copy.copy(inferer)
    method.factor, method.spacing, method.progress = 2, None, False
    found: dict[str, list[tuple[Tensor, Tensor]]] = {"": [], "linear_": []}
    for phase in (0, 1):
        if count < phase + 3:
            continue
        thick = torch.stack([FWHMDownsample(2, fwhm=0.0, phase=phase)(sample) for sample in volume])
        truth = volume[..., phase:]
        for name, result in (
            ("", method(thick, network)),
            ("linear_", SplineSliceInferer(factor=2, mode="linear")(thick)),
        ):
            pred, wanted = (image[0].clamp(0, data_range) for image in (result, truth))
            found[name].append(synthesized_pairs(pred, wanted, 2))
    quality: dict[str, Any] = {}
    for name, pairs in found.items():
        first, second = (torch.cat(images) for images in zip(*pairs, strict=True))
        for score in ("psnr", "ssim"):
            quality[name + score] = float(slice_score(first, second, score, data_range))
    exact = quality["psnr"] == quality["linear_psnr"]  # also where both are infinite
    quality["gain"] = 0.0 if exact else quality["psnr"] - quality["linear_psnr"]
    return {**quality, "slices": count - 2}


class LeaveOneOutQualityd(MapTransform):
    """Write the quality of a method on a scan beside its output, as ``<output's stem>_quality.json``.

    It has to come after :class:`monai_sliceinterp.transforms.SaveVolumed`. A scan of fewer than 3 slices, or of slices
    smaller than the window of SSIM, has no such score, nor has an unevenly spaced stack; the file then tells why.

    Args:
        keys: the written volume.
        inferer: the inferer that made it.
        network: the network.
        method: name of the method, for the file.
        image_key: the inferer's input ``(C, H, W, N)``, scaled to [0, 1].
        allow_missing_keys: do not raise for keys that are not there.

    Example:
        See ``bundles/asi/inference.json``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        inferer: SliceInterpolationInferer,
        network: Callable[..., Any] | None,
        method: str,
        image_key: str = CommonKeys.IMAGE,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.inferer, self.network, self.method, self.image_key = inferer, network, method, image_key

    def output_files(self, source: str | Path, before: Sequence[Path] = ()) -> list[Path]:
        """List the file that will be written for an input.

        Args:
            source: the file or DICOM folder that the volumes come from.
            before: what earlier steps write; the first is the output that is scored.
        """
        return [_beside(before[0])] if before else []

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Score the input and write the file; ``quality`` in the output's metadata holds the same."""
        result = dict(data)
        for key in self.key_iterator(result):
            quality: dict[str, Any] = {"method": self.method, "protocol": "leave-one-out"}
            image = result[self.image_key]
            reason = _no_score(image)
            if reason:
                quality["reason"] = f"no score: {reason}"
            else:
                # the engine has set the network back to the mode it was in before
                with eval_mode(*[self.network] if isinstance(self.network, nn.Module) else []):
                    scores = leave_one_out_quality(image[None], self.inferer, self.network)
                # JSON has no infinity; an exact result is told by null
                quality |= {name: value if abs(value) < float("inf") else None for name, value in scores.items()}
            with atomic_path(_beside(Path(result[key].meta["saved_to"]))) as part:
                part.write_text(json.dumps(quality, indent=2) + "\n")
            result[key].meta["quality"] = quality
        return result


def _no_score(image: Tensor) -> str:
    """Tell why a scan ``(C, H, W, N)`` cannot be scored, if it cannot."""
    *_, height, width, count = image.shape
    needed = SMALLEST_SLICE["ssim"]
    if count < 3:
        return f"{count} slices, of which none can be left out"
    if "slice_positions" in getattr(image, "meta", {}):
        return "unevenly spaced slices"
    if min(height, width) < needed:
        return f"slices of {height} x {width} pixels; SSIM needs {needed} x {needed}"
    return ""


def _beside(saved: Path) -> Path:
    return saved.with_name(f"{file_stem(saved)}_quality.json")


LeaveOneOutQualityD = LeaveOneOutQualityDict = LeaveOneOutQualityd
