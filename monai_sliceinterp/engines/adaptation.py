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

"""Adaptation of a network to the scan that it is to interpolate, kept only where it helps."""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.networks.utils import eval_mode
from monai.transforms import MapTransform
from monai.utils import CommonKeys
from torch import Tensor, nn

from monai_sliceinterp.checks import positive_integer
from monai_sliceinterp.engines.prepare import PrepareSliceBlocks
from monai_sliceinterp.geometry import ADAPTATION
from monai_sliceinterp.inferers import MixedPrecisionInferer
from monai_sliceinterp.precision import needs_loss_scaling
from monai_sliceinterp.transforms import RandSliceBlocksd
from monai_sliceinterp.transforms.quality import leave_one_out_quality, no_leave_one_out

__all__ = ["AdaptNetworkD", "AdaptNetworkDict", "AdaptNetworkd", "adaptation_text", "split_for_guard"]

_GUARDED = 0.25  # share of the longer in-plane axis, in its middle, that is kept from the training
_SMALLEST = 16  # pixels of a patch


def split_for_guard(image: Tensor) -> tuple[list[Tensor], Tensor]:
    """Divide a scan along its longer in-plane axis: what a network is adapted to, and what tells whether that helped.

    Slices that a network was trained on tell nothing about others. The middle quarter is kept from the training.

    Args:
        image: ``(C, H, W, N)``.

    Returns:
        The parts on both sides, and the middle.

    Example:
        >>> sides, middle = split_for_guard(torch.zeros(1, 32, 24, 5))
        >>> [tuple(part.shape) for part in (*sides, middle)]
        [(1, 12, 24, 5), (1, 12, 24, 5), (1, 8, 24, 5)]
    """
    axis = 1 if image.shape[1] >= image.shape[2] else 2
    length = image.shape[axis]
    width = round(_GUARDED * length)
    begin = (length - width) // 2
    bounds = ((0, begin), (begin + width, length), (begin, begin + width))
    first, second, middle = (image.narrow(axis, low, high - low) for low, high in bounds)
    return [first, second], middle


class AdaptNetworkd(MapTransform):
    """Dictionary transform that fine-tunes a network on the scan that it is to interpolate, and undoes what is worse.

    Slices of the scan are left out and learned from their neighbors; where its voxels are fine enough in the plane, its
    rows and columns serve as slices too. The middle of the scan, a quarter of it, is not trained on: there slices are
    left out before and after (:func:`monai_sliceinterp.transforms.leave_one_out_quality`), and the weights with the
    larger PSNR are used. Each scan begins with the weights that the network had at the first one.

    The volume itself passes unchanged. Its metadata tell, through :func:`monai_sliceinterp.geometry.read_adaptation`,
    "steps", "seed", "psnr_before", "psnr_after" (dB; null where it is exact) and "used", whether the adapted weights
    are; or "reason", why there was no adaptation.

    The training is MONAI's ``SupervisedTrainer`` on blocks of :class:`monai_sliceinterp.transforms.RandSliceBlocksd`,
    as in ``train.json``.

    Args:
        keys: the volume ``(C, H, W, N)``, slices last, scaled to about [0, 1]; one key.
        network: the network, changed in place.
        inferer: its inferer, which scores it and whose precision ("amp") the training has.
        sampler: draws the blocks. Its patches are made smaller for small scans.
        loss: loss function.
        optimizer: makes the optimizer of parameters.
        steps: number of steps.
        seed: seed of everything random.

    Raises:
        ValueError: if a number is none, or there are several keys.

    Example:
        >>> from functools import partial
        >>> from monai.data import MetaTensor
        >>> from monai_sliceinterp.geometry import read_adaptation
        >>> from monai_sliceinterp.inferers import MixtureSliceInferer
        >>> from monai_sliceinterp.networks.nets import MixtureNetwork
        >>> network, sampler = MixtureNetwork(4, 1), RandSliceBlocksd("image", 1, (16, 16), 2, [2])
        >>> settings = {"loss": nn.L1Loss(), "optimizer": partial(torch.optim.AdamW, lr=1e-3), "steps": 2}
        >>> adapt = AdaptNetworkd("image", network, MixtureSliceInferer(), sampler, **settings)
        >>> scan = MetaTensor(torch.rand(1, 64, 48, 5), affine=torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0])))
        >>> record = read_adaptation(adapt({"image": scan})["image"].meta)
        >>> record["steps"], record["used"] == (record["psnr_after"] > record["psnr_before"])
        (2, True)
    """

    def __init__(
        self,
        keys: KeysCollection,
        network: nn.Module,
        inferer: Callable[..., Tensor],
        sampler: RandSliceBlocksd,
        loss: Callable[..., Tensor],
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        steps: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__(keys)
        if len(self.keys) != 1:
            raise ValueError(f"a network is adapted to one volume; expected one key, got {self.keys}.")
        self.network, self.inferer, self.sampler = getattr(network, "module", network), inferer, sampler
        self.loss, self.optimizer = loss, optimizer
        self.steps = positive_integer("adapt_steps", steps)
        self.seed = positive_integer("adapt_seed", seed, least=0)
        self._initial: dict[str, Tensor] | None = None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Adapt the network to the volume."""
        result = dict(data)
        image = result[self.keys[0]] = copy.copy(result[self.keys[0]])
        if self._initial is None:
            self._initial = copy.deepcopy(self.network.state_dict())
        self.network.load_state_dict(self._initial)
        record: dict[str, Any] = {"steps": self.steps, "seed": self.seed}
        sides, middle = split_for_guard(image)
        sampler = self._sampler(sides[0])
        reason = no_leave_one_out(middle) or _too_small(sampler)
        if reason:
            record["reason"] = reason
        else:
            before = self._score(middle)
            self._train(sides, sampler)
            after = self._score(middle)
            # JSON has no infinity
            record |= {"psnr_before": _finite(before), "psnr_after": _finite(after), "used": after > before}
            if not record["used"]:
                self.network.load_state_dict(self._initial)
        image.meta[ADAPTATION] = json.dumps(record)
        return result

    def _sampler(self, part: Tensor) -> RandSliceBlocksd:
        """Copy the sampler, for a volume whose slices are last, and with patches that fit its parts."""
        sampler = copy.deepcopy(self.sampler)
        blocks = sampler.transform
        blocks.axis = 2
        side = min(*part.shape[1:3], *blocks.patch_size)
        blocks.patch_size = (side, side)
        return sampler

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _score(self, part: Tensor) -> float:
        with eval_mode(self.network):
            return leave_one_out_quality(part[None].to(self._device), self.inferer, self.network)["psnr"]

    def _train(self, parts: list[Tensor], sampler: RandSliceBlocksd) -> None:
        """Take the steps, by turns on the parts, at a rate that falls to zero."""
        items = [{CommonKeys.IMAGE.value: parts[step % len(parts)]} for step in range(self.steps)]
        # a generator of its own leaves that of the program alone
        batches = DataLoader(Dataset(items, sampler), num_workers=0, batch_size=1, generator=torch.Generator())
        sampler.set_random_state(self.seed)
        optimizer = self.optimizer(self.network.parameters())
        amp = getattr(self.inferer, "amp", False)
        falling: Any = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        trainer = SupervisedTrainer(
            device=self._device,
            max_epochs=1,
            train_data_loader=batches,
            network=self.network,
            optimizer=optimizer,
            loss_function=self.loss,
            inferer=MixedPrecisionInferer(amp),
            amp=needs_loss_scaling(amp, self._device),
            prepare_batch=PrepareSliceBlocks(thickness=True),
            train_handlers=[LrScheduleHandler(falling, print_lr=False, epoch_level=False)],
            decollate=False,
        )
        trainer.logger.setLevel(logging.CRITICAL)  # errors are reported once, by whoever runs this
        was_training = self.network.training
        with torch.enable_grad():
            trainer.run()
        self.network.train(was_training)


def _too_small(sampler: RandSliceBlocksd) -> str:
    """Explain why the parts of a scan are too small for blocks; empty if they are not."""
    side = sampler.transform.patch_size[0]
    if side < _SMALLEST:
        return f"slices that leave {side} pixels beside their middle to learn from; it takes {_SMALLEST}"
    return ""


def _finite(score: float) -> float | None:
    return score if math.isfinite(score) else None


def adaptation_text(record: Mapping[str, Any]) -> str:
    """Tell in a line what an adaptation came to.

    Example:
        >>> adaptation_text({"steps": 9, "seed": 0, "psnr_before": 20.0, "psnr_after": 20.5, "used": True})
        'adapted in 9 steps (seed 0): 20.50 dB where slices were left out that it had not seen, 20.00 dB before: used.'
    """
    if "reason" in record:
        return f"not adapted: {record['reason']}."
    scores = (record["psnr_after"], record["psnr_before"])
    psnr = ["exact" if score is None else f"{score:.2f} dB" for score in scores]
    return (
        f"adapted in {record['steps']} steps (seed {record['seed']}): {psnr[0]} where slices were left out that it had "
        f"not seen, {psnr[1]} before: {'used' if record['used'] else 'not used'}."
    )


AdaptNetworkD = AdaptNetworkDict = AdaptNetworkd
