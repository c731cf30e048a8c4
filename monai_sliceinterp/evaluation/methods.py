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

"""Methods by name: classical interpolation, and bundles as their users get them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import cast

import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter
from torch import Tensor

from monai_sliceinterp.bundles import CLASSICAL as _INTERPOLATION
from monai_sliceinterp.bundles import MethodText, find_bundle, parse_method, unpacked
from monai_sliceinterp.bundles.naming import joined
from monai_sliceinterp.evaluation.cost import measure_cost
from monai_sliceinterp.inferers import MotionSliceInferer, SplineSliceInferer
from monai_sliceinterp.interpolation.pipeline import BundlePipeline
from monai_sliceinterp.transforms.intensity import scale_to_unit, unscale_from_unit

__all__ = [
    "CLASSICAL",
    "Method",
    "MethodText",
    "find_device",
    "find_method",
    "find_methods",
    "in_units",
    "interpolate_unit",
    "parse_method",
]

CLASSICAL = (*_INTERPOLATION, "blurred")
"""Methods without a network. "blurred" is linear interpolation whose synthesized slices are blurred in-plane. It is a
yardstick: it gains PSNR for nothing, and shows it in its sharpness and flicker."""

_BLUR = 0.7  # standard deviation in pixels

_ABOUT = {
    "linear": "the mean of the two neighboring slices, weighted by distance, as most viewers show it; blurs.",
    "cubic": "a cubic B-spline through all slices; sharper than linear, may swing beside edges.",
    "lanczos": "a windowed sinc over six slices; the sharpest of the three, and the most prone to swing beside edges.",
    "blurred": "linear, blurred in the plane: a yardstick, no method; who gains no more than it gains by blur.",
    "motion": "neighboring slices displaced along the optical flow between them, no training; for thick slices.",
}
"""What classical methods do."""

_RESERVED = ("truth", "input")  # names of what pictures show beside methods


@dataclass(frozen=True)
class Method:
    """Method that is evaluated.

    Attributes:
        name: its name in tables and pictures.
        fingerprint: changes with the weights, the config, and the type of device.
        device: where it computes.
        run: interpolates ``(C, H, W, N)`` by a factor.
        about: what it does, in a sentence.
        series: name of the curve it lies on, where its name is SERIES@NUMBER; else empty.
        number: its place on this curve.
        reconstruct: computes the slices of ``(C, H, W, N)`` anew, without copying any; None for methods that always
            return them as they are.
    """

    name: str
    fingerprint: str
    device: torch.device
    run: Callable[[MetaTensor, int], MetaTensor]
    about: str = ""
    series: str = ""
    number: float = 0.0
    reconstruct: Callable[[MetaTensor], MetaTensor] | None = None

    def interpolate(self, thick: MetaTensor, factor: int) -> MetaTensor:
        """Interpolate a volume.

        Args:
            thick: ``(C, H, W, N)`` float32, slices last, in the units of the scan (for instance HU), with its affine.
            factor: upsampling factor.

        Returns:
            ``(C, H, W, (N - 1) * factor + 1)`` on the CPU, in the same units, not rounded to the scan's stored type.

        Raises:
            ValueError: if the method fails, or its result has another shape or is not finite.
        """
        result = self.run(thick, factor)
        expected = (*thick.shape[:-1], (thick.shape[-1] - 1) * factor + 1)
        if tuple(result.shape) != expected:
            raise ValueError(f"{self.name}: made a volume of shape {tuple(result.shape)}; expected {expected}.")
        if not result.isfinite().all():
            raise ValueError(f"{self.name}: made NaN or infinite intensities; expected finite ones.")
        return result


def find_device(name: str = "") -> torch.device:
    """Find a device by name; without a name the GPU if there is one, else the CPU."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # as torch was built
        raise ValueError(f"there is no device {name!r} here; expected for instance cpu or cuda:0.") from error
    return device


def find_method(text: str, device: torch.device | str = "cpu") -> Method:
    """Find a method and load its weights.

    The config of a bundle is a program: run only bundles you trust, as with ``monai.bundle run``.

    Args:
        text: see :func:`parse_method`; a bare name is looked for among the bundles first, see
            :func:`monai_sliceinterp.bundles.bundle_roots`.
        device: where networks compute.

    Raises:
        ValueError: with one line, if there is no such method, overlay, or weights.

    Example:
        >>> method = find_method("cubic")
        >>> tuple(method.interpolate(MetaTensor(torch.rand(1, 8, 8, 3)), factor=4).shape)
        (1, 8, 8, 9)
        >>> find_method("cubik")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: unknown method 'cubik': ... did you mean 'cubic'?
    """
    parts, device = parse_method(text), torch.device(device)
    if parts.source in CLASSICAL:
        if parts.overlays or parts.ckpt:
            raise ValueError(f"method {text!r}: {parts.source} takes neither configs nor weights.")
        run, about = _classical(parts.source), _ABOUT[parts.source]
        return _named(parts.name or parts.source, f"classical {parts.source}", torch.device("cpu"), run, about)
    with ExitStack() as stack:
        folder = find_bundle(parts.source, CLASSICAL)
        if folder.is_file():
            folder = stack.enter_context(unpacked(folder))
        pipeline = BundlePipeline(parts, folder, device)
        name = parts.name or joined(folder.name, parts.overlays)
        method = _named(name, pipeline.fingerprint, device, pipeline, pipeline.description)
        return replace(method, reconstruct=pipeline.reconstruct) if "keep_observed" in pipeline.parser else method


def find_methods(texts: Sequence[str], device: torch.device | str = "cpu") -> list[Method]:
    """Find several methods of different names, see :func:`find_method`."""
    methods = [find_method(text, device) for text in texts]
    names = [method.name for method in methods]
    if not names:
        raise ValueError("no method is given; expected for instance linear, cubic, or the name of a bundle.")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two methods are called {name!r}; name them apart: NAME={name}.")
    return methods


def in_units(thick: MetaTensor, window: tuple[float, float]) -> MetaTensor:
    """Scale a volume from [0, 1] to the units of its scan."""
    scan = MetaTensor(unscale_from_unit(thick.as_tensor(), *window)).copy_meta_from(thick)
    scan.applied_operations = []  # a method must not undo the preprocessing of the thin volume
    return scan


def interpolate_unit(
    method: Method, thick: MetaTensor, factor: int, window: tuple[float, float]
) -> tuple[Tensor, float, float]:
    """Interpolate a thick volume ``(C, H, W, N)`` that is scaled from a window to [0, 1], in the units of the scan.

    Returns:
        The result in [0, 1], seconds, and MiB, see :func:`monai_sliceinterp.evaluation.cost.measure_cost`.
    """
    scan = in_units(thick, window)
    fine, seconds, memory = measure_cost(lambda: method.interpolate(scan, factor), method.device)
    return scale_to_unit(fine.as_tensor(), *window, clip=True), seconds, memory


def _named(
    name: str, fingerprint: str, device: torch.device, run: Callable[[MetaTensor, int], MetaTensor], about: str
) -> Method:
    """Make a method, if its name is one that files and pictures can have."""
    if not re.fullmatch(r"[\w.+@ -]+", name) or name in _RESERVED:
        raise ValueError(f"{name!r} cannot be the name of a method; name it by letters and digits: NAME=PATH.")
    point = re.fullmatch(r"(.+)@([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)", name)
    return Method(name, fingerprint, device, run, about, *((point[1], float(point[2])) if point else ()))


def _classical(name: str) -> Callable[[MetaTensor, int], MetaTensor]:
    """Make a classical method."""

    def interpolate(thick: MetaTensor, factor: int) -> MetaTensor:
        mode = "linear" if name == "blurred" else name
        inferer = MotionSliceInferer(factor) if name == "motion" else SplineSliceInferer(factor, mode=mode)
        result = cast(MetaTensor, inferer(thick[None])[0])
        if name == "blurred":
            smooth = torch.as_tensor(gaussian_filter(result.numpy(), (0, _BLUR, _BLUR, 0), mode="nearest"))
            synthesized = torch.arange(result.shape[-1]) % factor != 0
            result[..., synthesized] = smooth[..., synthesized]
        return result

    return interpolate
