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

"""Quality of a method on one scan: its own slices, left out one after another, are the truth."""

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
from monai_sliceinterp.geometry import read_adaptation
from monai_sliceinterp.metrics import LEAVE_ONE_OUT, SMALLEST_SLICE, slice_score
from monai_sliceinterp.resampling import apply_weights, interpolation_weights

__all__ = [
    "LeaveOneOutQualityD",
    "LeaveOneOutQualityDict",
    "LeaveOneOutQualityd",
    "leave_one_out_quality",
    "no_leave_one_out",
]


@torch.no_grad()
def leave_one_out_quality(
    volume: Tensor,
    inferer: Callable[..., Tensor],
    network: Callable[..., Any] | None = None,
    data_range: float = 1.0,
) -> dict[str, Any]:
    """Leave out every second slice, interpolate it from its neighbors, and compare with linear interpolation.

    Every slice but the first and the last is left out once. The distance bridged is twice that of the scan, so the
    error is larger than that of the slices the scan is given; it shows which method is closer to the truth, and by how
    much. A method that restores slabs, too, is compared with slices as thick as they were.

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
        >>> from monai_sliceinterp.inferers import SplineSliceInferer
        >>> ramp = torch.linspace(0, 1, 5).expand(1, 1, 16, 16, 5)
        >>> quality = leave_one_out_quality(ramp, SplineSliceInferer(mode="lanczos"))
        >>> quality["slices"], quality["gain"] < 0
        (3, True)
    """
    scan = volume[0]
    count = scan.shape[-1]
    if count < 3:
        raise ValueError(f"to leave slices out takes at least 3 of them, the volume has {count}.")
    method: Any = copy.copy(inferer)
    method.factor, method.spacing, method.progress = 2, None, False
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {"": [], "linear_": []}
    for protocol in LEAVE_ONE_OUT:
        if protocol.can_score(count):
            trial = protocol.trial(scan)
            pairs[""].append(trial.pairs(method(trial.thick[None], network)[0], data_range))
            pairs["linear_"].append(trial.pairs(_linear(trial.thick.as_tensor()), data_range))
    quality: dict[str, Any] = {}
    for name, parts in pairs.items():
        first, second = (torch.cat(images) for images in zip(*parts, strict=True))
        for score in ("psnr", "ssim"):
            quality[name + score] = float(slice_score(first, second, score, data_range))
    exact = quality["psnr"] == quality["linear_psnr"]  # also where both are infinite
    quality["gain"] = 0.0 if exact else quality["psnr"] - quality["linear_psnr"]
    return {**quality, "slices": count - 2}


class LeaveOneOutQualityd(MapTransform):
    """Dictionary transform that writes the quality of a method on a scan beside its output.

    The file is called ``<output's stem>_quality.json``. The transform has to come after
    :class:`monai_sliceinterp.transforms.SaveVolumed`. A scan of fewer than 3 slices, or of slices smaller than the
    window of SSIM, has no such score, nor has an unevenly spaced stack; the file then contains the reason. What came of
    adapting the network to the scan stands there too.

    Args:
        keys: the written volume.
        inferer: the inferer that made it.
        network: the network.
        method: name of the method, for the file.
        image_key: the inferer's input ``(C, H, W, N)``, scaled to [0, 1].
        allow_missing_keys: do not raise for keys that are not there.

    Example:
        >>> import tempfile
        >>> from monai.data import MetaTensor
        >>> from monai_sliceinterp.inferers import SplineSliceInferer
        >>> scan = MetaTensor(torch.rand(1, 12, 12, 5))
        >>> output = MetaTensor(torch.rand(1, 12, 12, 9), meta={"saved_to": f"{tempfile.mkdtemp()}/scan_interp.nii.gz"})
        >>> quality = LeaveOneOutQualityd("pred", SplineSliceInferer(mode="linear"), None, "linear")
        >>> quality({"image": scan, "pred": output})["pred"].meta["quality"]["gain"]
        0.0
    """

    def __init__(
        self,
        keys: KeysCollection,
        inferer: Callable[..., Tensor],
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
            before: files of earlier steps; the first is the output that is scored.
        """
        return [_beside(before[0])] if before else []

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Score the input and write the file; ``quality`` in the output's metadata holds the same."""
        result = dict(data)
        for key in self.key_iterator(result):
            quality: dict[str, Any] = {"method": self.method, "protocol": "leave-one-out"}
            image = result[self.image_key]
            reason = no_leave_one_out(image)
            if reason:
                quality["reason"] = f"no score: {reason}"
            else:
                # the engine has set the network back to the mode it was in before
                with eval_mode(*[self.network] if isinstance(self.network, nn.Module) else []):
                    scores = leave_one_out_quality(image[None], self.inferer, self.network)
                # JSON has no infinity; null stands for an exact result
                quality |= {name: value if abs(value) < float("inf") else None for name, value in scores.items()}
            if (adaptation := read_adaptation(result[key].meta)) is not None:
                quality["adaptation"] = adaptation
            with atomic_path(_beside(Path(result[key].meta["saved_to"]))) as part:
                part.write_text(json.dumps(quality, indent=2) + "\n")
            result[key].meta["quality"] = quality
        return result


def _linear(thick: Tensor) -> Tensor:
    """Interpolate slices ``(C, H, W, N)`` linearly by two: ``(C, H, W, 2 N - 1)``."""
    count = thick.shape[-1]
    return apply_weights(thick, interpolation_weights(count, torch.arange(2 * count - 1) / 2, "linear"))


def no_leave_one_out(image: Tensor) -> str:
    """Explain why a scan ``(C, H, W, N)`` cannot be scored by leaving slices out; empty if it can.

    Example:
        >>> no_leave_one_out(torch.zeros(1, 16, 16, 2))
        '2 slices, of which none can be left out'
    """
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
