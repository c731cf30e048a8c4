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


"""Mixture network: classical interpolations mixed voxel by voxel, plus a residual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_sliceinterp import checks
from monai_sliceinterp.networks.blocks.slice_features import PositionFilters, SliceBlock, convolve_plane
from monai_sliceinterp.optical_flow import box_smoothed, gap_motion, motion_compensated
from monai_sliceinterp.precision import in_float32
from monai_sliceinterp.resampling import interpolation_weights

__all__ = ["MIXED", "MixtureNetwork"]

MIXED = ("linear", "cubic", "motion")
"""The interpolations that are mixed, in this order."""

_LEAST_CONTRAST = 1e-3  # of the intensity range: below it, differences are noise

_SLOPE = 0.2  # of the last activation: with 0, nine of ten of its channels went silent early in the training

_GAIN = 0.1  # relative differences of the interpolations, as the network sees them


class MixtureNetwork(nn.Module):
    """Network that mixes linear, cubic B-spline and motion-compensated interpolation, and adds what they miss.

    The synthesized slice at the fraction ``a`` of a gap is ``sum_k w_k c_k + 4 a (1 - a) d r``: at every voxel a
    mixture of the interpolations c_k, with weights w_k >= 0 that sum to one (softmax), and a residual r that vanishes
    at the observed slices. It is in units of d, the difference of the neighboring slices around the voxel, so that soft
    tissue in CT and a beating heart in MR need numbers of the same size. The untrained network gives the mean of the
    interpolations.

    Weights and residual come from features of the observed slices, which are computed once for each slice, at half the
    in-plane resolution, by residual blocks over the neighboring slices. Position, slice spacing, slice thickness and
    pixel spacing only enter at the end, in generated weights of the features of the four slices around the position, so
    that one network serves all of them. With the default sizes it has 358,336 parameters and costs 33,000
    multiplications per synthesized voxel at a factor of 4.

    :meth:`forward` interpolates small volumes at once, for training, export and checks; whole scans are interpolated by
    :class:`monai_sliceinterp.inferers.MixtureSliceInferer`, which needs little memory.

    Args:
        channels: channels of the features.
        num_blocks: number of residual blocks.
        mixed: the interpolations that are mixed, two or all of :data:`MIXED`.
        residual: add what they miss.

    Raises:
        ValueError: if a size is not positive, an interpolation unknown, or there is but one.

    Example:
        >>> network = MixtureNetwork(channels=8, num_blocks=1)
        >>> network(torch.rand(1, 1, 20, 16, 3), factor=2, slice_spacing=5.0, in_plane_spacing=(0.8, 0.8)).shape
        torch.Size([1, 1, 20, 16, 5])
    """

    def __init__(
        self,
        channels: int = 48,
        num_blocks: int = 6,
        mixed: Sequence[str] = MIXED,
        residual: bool = True,
    ) -> None:
        super().__init__()
        checks.positive_integer("channels", channels)
        checks.positive_integer("num_blocks", num_blocks)
        self.mixed, self.residual = tuple(checks.some_of("mixed", mixed, MIXED)), checks.switch("residual", residual)
        if len(self.mixed) < 2:
            raise ValueError(f"mixed must be two or more of {', '.join(MIXED)}, got {mixed!r}.")
        self.stem = nn.Conv3d(4, channels, (1, 3, 3), padding=(0, 1, 1))
        self.blocks = nn.ModuleList([SliceBlock(channels) for _ in range(num_blocks)])
        self.filters = PositionFilters(channels)
        self.join = nn.Conv2d(2 * channels, channels, 1)
        self.head = nn.Conv2d(channels + 4 * (len(self.mixed) - 1), channels, 3, padding=1)
        self.last = nn.Conv2d(channels, 4 * (len(self.mixed) + self.residual), 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)
        for module in (self.stem, self.blocks):
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(
        self,
        image: Tensor,
        factor: int = 4,
        slice_spacing: float | Tensor = 4.0,
        in_plane_spacing: Sequence[float | Tensor] = (1.0, 1.0),
        slice_thickness: float | Tensor = 0.0,
    ) -> Tensor:
        """Interpolate volumes by an integer factor.

        Args:
            image: ``(B, 1, H, W, N)``, slices last, with contrasts of about 1.
            factor: upsampling factor K.
            slice_spacing: distance of the slices in mm, a number or ``(B,)``.
            in_plane_spacing: distances of the pixels along H and W in mm, numbers or ``(B,)``.
            slice_thickness: in mm, a number or ``(B,)``; 0 where it is not known.

        Returns:
            ``(B, 1, H, W, K (N - 1) + 1)``; the observed slices are copied.

        Raises:
            ValueError: if the image is not a batch of such volumes, or the spacings do not fit it.
        """
        numbers = [torch.as_tensor(value) for value in (slice_spacing, *in_plane_spacing, slice_thickness)]
        for value in numbers:
            if value.numel() not in (1, len(image)):
                raise ValueError(f"spacings must be one number or one for each of {len(image)} volumes, got {value!r}.")
        if image.ndim != 5 or image.shape[1] != 1:
            raise ValueError(f"expected volumes (B, 1, H, W, N), got shape {tuple(image.shape)}.")
        if image.shape[-1] < 2:
            raise ValueError(f"interpolation needs at least 2 slices, got {image.shape[-1]}.")
        # exporters make tensors of defaults
        factor = checks.positive_integer("factor", int(factor) if isinstance(factor, Tensor) else factor)
        batch, count = int(image.shape[0]), int(image.shape[-1])  # constants of an export
        gaps, inner = count - 1, factor - 1
        observed = image.permute(0, 4, 1, 2, 3)  # (B, N, 1, H, W)
        if not inner:
            return image.clone()
        alpha = torch.arange(1, factor, dtype=image.dtype, device=image.device) / factor
        positions = [gap + step / factor for gap in range(gaps) for step in range(1, factor)]
        spline = torch.as_tensor(interpolation_weights(count, positions, "cubic")).to(image)
        pair = observed[:, :-1].flatten(0, 1), observed[:, 1:].flatten(0, 1)
        fractions = alpha.repeat(batch * gaps)
        across, rows, columns, thickness = (
            value.to(image).reshape(-1).expand(batch).repeat_interleave(gaps * inner) for value in numbers
        )
        with in_float32(image.device):  # what is mixed is no coarser than the image
            cubic = (image @ spline).permute(0, 4, 1, 2, 3).flatten(0, 1)
            parts = (*pair, *self.motion(*pair), self.contrast(*pair))
            earlier, later, flow, confidence, contrast = (part.repeat_interleave(inner, dim=0) for part in parts)
            mixed = self.interpolations(earlier, later, cubic, flow, confidence, fractions)
            weights = self.filters(fractions, across, (rows * columns).sqrt(), thickness)
        features = self.encode(observed.transpose(1, 2))
        near = torch.arange(gaps, device=image.device)[:, None] + torch.arange(-1, 3, device=image.device)
        around = features[:, :, near.clamp(0, count - 1)]  # (B, C, gaps, 4, h, w)
        weights = weights.unflatten(0, (batch, gaps, inner))
        joined = torch.einsum("bcgshw,bgkrcs->bgkrchw", around, weights.to(around)).flatten(0, 2).flatten(1, 2)
        result = self.decode(joined, mixed, contrast, fractions).unflatten(0, (batch, gaps, inner))
        whole = torch.cat([observed[:, :-1, None], result], dim=2).flatten(1, 2)
        return torch.cat([whole, observed[:, -1:]], dim=1).permute(0, 2, 3, 4, 1)

    def encode(self, slices: Tensor) -> Tensor:
        """Compute the features ``(B, C, N, h, w)`` of slices ``(B, 1, N, H, W)``; h and w are half, rounded up."""
        features: Tensor = self.stem(_unshuffled(slices))
        for block in self.blocks:
            features = block(features)
        return features

    def stream(self, slices: Iterator[Tensor]) -> Iterator[Tensor]:
        """Compute features ``(C, h, w)`` of one slice ``(H, W)`` after another, with those of few slices in memory."""
        features: Iterator[Tensor] = (
            convolve_plane(self.stem, _unshuffled(slice_[None, None, None])[:, :, 0]) for slice_ in slices
        )
        for block in self.blocks:
            features = block.stream(features)  # type: ignore[operator]
        for result in features:
            yield result[0]

    @torch.no_grad()
    def motion(self, earlier: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the flow between slices ``(B, 1, H, W)`` and its confidence; none where motion is not mixed.

        See :func:`monai_sliceinterp.optical_flow.gap_motion`.
        """
        if "motion" in self.mixed:
            return gap_motion(earlier, later)
        return torch.zeros_like(earlier).expand(-1, 2, -1, -1), torch.zeros_like(earlier)

    def interpolations(
        self, earlier: Tensor, later: Tensor, cubic: Tensor, flow: Tensor, confidence: Tensor, alpha: Tensor
    ) -> Tensor:
        """Collect what is mixed, ``(P, 3, H, W)`` by default, at P positions.

        Args:
            earlier: slices before the positions ``(P, 1, H, W)``.
            later: those behind them.
            cubic: the cubic B-spline there.
            flow: see :meth:`motion`.
            confidence: likewise.
            alpha: fractions of the gaps ``(P,)``.
        """
        parts = {
            "linear": lambda: torch.lerp(earlier, later, alpha.reshape(-1, 1, 1, 1)),
            "cubic": lambda: cubic,
            "motion": lambda: motion_compensated(earlier, later, flow, confidence, alpha),
        }
        return torch.cat([parts[name]() for name in self.mixed], dim=1)

    def join_features(self, around: Tensor, weights: Tensor) -> Tensor:
        """Sum features of four slices ``(C, 4, h, w)`` by weights ``(P, R, C, 4)``, to ``(P, R C, h, w)``."""
        return torch.einsum("cshw,prcs->prchw", around, weights.to(around)).flatten(1, 2)

    def contrast(self, earlier: Tensor, later: Tensor) -> Tensor:
        """Compute the mean difference of slices ``(B, 1, H, W)`` in a square of seven pixels, ``(B, 1, H, W)``."""
        return box_smoothed((later - earlier).abs(), 7)

    def decode(self, joined: Tensor, mixed: Tensor, contrast: Tensor, alpha: Tensor) -> Tensor:
        """Compute the synthesized slices.

        Args:
            joined: weighted features ``(P, R C, h, w)``.
            mixed: the interpolations, see :meth:`interpolations`.
            contrast: the difference of the neighboring slices ``(P, 1, H, W)``, see :meth:`contrast`.
            alpha: fractions of the gaps ``(P,)``.

        Returns:
            ``(P, 1, H, W)``.
        """
        height, width = mixed.shape[-2:]
        relative = (mixed[:, 1:] - mixed[:, :1]) / (contrast + _LEAST_CONTRAST)
        differences = _unshuffled(_GAIN * relative[:, :, None])[:, :, 0]
        hidden = torch.cat([self.join(joined), differences.to(joined)], dim=1)
        found = self.last(F.leaky_relu(self.head(hidden), _SLOPE))
        found = F.pixel_shuffle(found.to(mixed), 2)[..., :height, :width]
        weights, residual = found[:, : len(self.mixed)].softmax(dim=1), found[:, len(self.mixed) :]
        result = (weights * mixed).sum(dim=1, keepdim=True)
        if not self.residual:
            return result
        return result + (4 * alpha * (1 - alpha)).reshape(-1, 1, 1, 1) * contrast * residual


def _unshuffled(slices: Tensor) -> Tensor:
    """Move 2 x 2 pixels of ``(B, C, N, H, W)`` into channels ``(B, 4 C, N, h, w)``; odd borders are repeated."""
    batch, _, count, height, width = map(int, slices.shape)
    planes = slices.transpose(1, 2).flatten(0, 1)
    if height % 2 or width % 2:
        planes = F.pad(planes, (0, width % 2, 0, height % 2), mode="replicate")
    return F.pixel_unshuffle(planes, 2).unflatten(0, (batch, count)).transpose(1, 2)
