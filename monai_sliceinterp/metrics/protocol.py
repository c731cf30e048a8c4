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

"""Protocols of an evaluation: how a volume is degraded, so that the slices to be interpolated are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from monai.data import MetaTensor
from torch import Tensor

from monai_sliceinterp.geometry import scaled_affine, slice_positions
from monai_sliceinterp.metrics.slices import synthesized_pairs
from monai_sliceinterp.metrics.volume import score_volume

__all__ = ["LEAVE_ONE_OUT", "Protocol", "Trial", "every_second_slice"]


@dataclass(frozen=True)
class Trial:
    """Thick volume that methods interpolate, and the truth that their results are scored against.

    Attributes:
        thick: ``(C, H, W, N)``, slices last, with its affine.
        truth: ``(C, H, W, M)`` or longer; its first slice is at the place of the first thick one.
        factor: upsampling factor.
        include_observed: whether the slices at observed positions are scored too.
        body: mask of the truth's shape for the scores inside the body; None: there are none.
    """

    thick: MetaTensor
    truth: MetaTensor
    factor: int
    include_observed: bool = False
    body: Tensor | None = None

    def pairs(self, pred: Tensor, data_range: float | None = None) -> tuple[Tensor, Tensor]:
        """Select the slices of a result ``(C, H, W, M)`` that are scored, and the true ones.

        Args:
            pred: the result.
            data_range: intensities are clipped to [0, ``data_range``]; None: they are not.

        Returns:
            Two tensors ``(K C, 1, H, W)``, see :func:`monai_sliceinterp.metrics.synthesized_pairs`.
        """
        truth: Tensor = self.truth
        if data_range is not None:
            pred, truth = pred.clamp(0, data_range), truth.clamp(0, data_range)
        return synthesized_pairs(pred, truth, self.factor, self.include_observed)

    def score(self, pred: Tensor, data_range: float = 1.0, detailed: bool = False) -> dict[str, float]:
        """Compute the scores of a result ``(C, H, W, M)``, see :func:`monai_sliceinterp.metrics.score_volume`."""
        return score_volume(pred, self.truth, self.factor, data_range, self.body, self.include_observed, detailed)


@dataclass(frozen=True)
class Protocol:
    """Way to make a thin volume thick, and to score what methods make of it.

    Attributes:
        title: name in tables, for instance "subsample x2".
        factor: upsampling factor.
        degrade: makes the thick volume of a thin one ``(C, H, W, N)`` and its number among the volumes, and returns it
            with the index of its first slice in the thin one.
        note: a sentence for readers on how it degrades.
        phase: index of the first thick slice, where it is fixed.
        include_observed: score the slices at observed positions too, as no thick slice shows a true one as it is.
        by_number: whether the volume's number matters.
        settings: what else the result depends on, as JSON can hold it.

    Example:
        >>> import torch
        >>> scan = MetaTensor(torch.arange(5.0).expand(1, 12, 12, 5))
        >>> trial = LEAVE_ONE_OUT[1].trial(scan)
        >>> LEAVE_ONE_OUT[1].title, trial.thick[0, 0, 0].tolist(), trial.truth[0, 0, 0].tolist()
        ('leave-one-out from 1', [1.0, 3.0], [1.0, 2.0, 3.0, 4.0])
    """

    title: str
    factor: int
    degrade: Callable[[MetaTensor, int], tuple[MetaTensor, int]]
    note: str = ""
    phase: int = 0
    include_observed: bool = False
    by_number: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def can_score(self, num_slices: int) -> bool:
        """Check whether a volume has enough slices: one gap between thick slices, whatever is drawn at random.

        Example:
            >>> [protocol.can_score(3) for protocol in LEAVE_ONE_OUT]
            [True, False]
        """
        return num_slices - self.phase > self.factor

    def identity(self, number: int) -> dict[str, Any]:
        """Return everything that the scores of a method on a volume of this number depend on, as JSON can hold it."""
        return {"factor": self.factor, **self.settings, **({"number": number} if self.by_number else {})}

    def trial(self, thin: Tensor, number: int = 0, body: Tensor | None = None) -> Trial:
        """Degrade a thin volume.

        Args:
            thin: ``(C, H, W, N)``, slices last.
            number: number of the volume, from which a random protocol draws its settings.
            body: mask of the body, of the volume's shape.

        Raises:
            ValueError: if the volume has too few slices.
        """
        image = thin if isinstance(thin, MetaTensor) else MetaTensor(thin)
        thick, first = self.degrade(image, number)
        truth = MetaTensor(image.as_tensor()[..., first:], affine=image.affine)
        inside = None if body is None else body[..., first:]
        return Trial(thick, truth, self.factor, self.include_observed, inside)


def every_second_slice(image: MetaTensor, number: int = 0, phase: int = 0) -> tuple[MetaTensor, int]:
    """Take every second slice of a volume as it is; a degradation of :class:`Protocol`.

    Args:
        image: ``(C, H, W, N)``, slices last.
        number: number of the volume, which does not matter here.
        phase: index of the first slice.

    Returns:
        The slices with their affine, and ``phase``.

    Raises:
        ValueError: if less than two would remain, or the slices are unevenly spaced.
    """
    if slice_positions(image, 2) is not None:
        raise ValueError("the slices are unevenly spaced or some are missing; expected even gaps to leave slices out.")
    if image.shape[-1] < phase + 3:
        raise ValueError(f"to leave slices out takes at least {phase + 3} of them, the volume has {image.shape[-1]}.")
    thick = MetaTensor(image.as_tensor()[..., phase::2].clone()).copy_meta_from(image)
    thick.affine = scaled_affine(image.affine, 2, 2, start=phase)
    return thick, phase


LEAVE_ONE_OUT = tuple(
    Protocol(
        "leave-one-out" + (f" from {phase}" if phase else ""),
        2,
        partial(every_second_slice, phase=phase),
        "leave-one-out: every second slice of the volume is left out, in one run the odd and in another the even ones. "
        "This needs no thin slices; the spacing of the result is the scan's own.",
        phase=phase,
        settings={"protocol": "leave_one_out", "phase": phase},
    )
    for phase in (0, 1)
)
"""Both halves of the leave-one-out protocol: every slice but the first and the last is left out in one of them."""
