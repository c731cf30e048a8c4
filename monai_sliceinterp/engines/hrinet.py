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

"""Trainer of HRINet and of the autoencoders it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from monai.engines.utils import IterationEvents, PrepareBatchExtraInput
from monai.utils import CommonKeys
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from monai_sliceinterp import checks
from monai_sliceinterp.engines.adversarial import CriticTrainer

__all__ = ["AlternatingSupervisionTrainer"]

STEPS = ("unsupervised", "supervised")


class AlternatingSupervisionTrainer(CriticTrainer):
    """Trainer of a slice autoencoder by alternating supervision: pairs without truth, groups with it (HRINet, 3.3).

    Step I, unsupervised: slices of different samples are paired; the loss of reconstructions and mixtures is

        content + constraint_weight * constraint + adversarial_weight * adversarial          (eq. 4)

    - content: the reconstructions against the slices (eq. 5 or 6);
    - constraint: the squared estimate of ACAI's critic D1, which learns to estimate the mixing coefficient (eq. 7).
      The coefficient is drawn from [0, 0.5], as in ACAI: a mixture and its mirror image look alike;
    - adversarial: loss of the mixtures by the patch critic D2, which learns to distinguish slices from mixtures (eq. 8,
      in the form of ``adversarial_loss``).

    Step II, supervised: the slices between the ends of a group are synthesized and compared with the true ones (eq. 9).
    Both steps alternate from iteration to iteration, beginning with Step I. Critics only learn in Step I, from detached
    inputs.

    HRINet's stage I, and ACAI, are Step I without D2; the plain autoencoder is Step I with both weights 0; a VAE adds
    ``divergence_weight``.

    The output of the engine contains, beside image, label and prediction, the losses of the step by name: "loss",
    "content", "constraint", "adversarial", "divergence", "supervised", "constraint_critic", "patch_critic".

    Args:
        device: device that the batches are moved to.
        max_epochs: number of epochs.
        train_data_loader: batches as :class:`monai_sliceinterp.transforms.RandSliceGroupsd` draws them.
        autoencoder: network derived from :class:`monai_sliceinterp.networks.nets.LatentInterpolator`.
        autoencoder_optimizer: its optimizer.
        constraint_critic: D1, see :class:`monai_sliceinterp.networks.nets.InterpolationCritic`; None where
            ``constraint_weight`` is 0.
        constraint_optimizer: its optimizer.
        patch_critic: D2, such as :class:`monai.networks.nets.PatchDiscriminator`; None where ``adversarial_weight`` is
            0. Of a list of outputs, the last one is used.
        patch_optimizer: its optimizer.
        content_loss: loss of slices ``(B, C, H, W)``.
        adversarial_loss: such as :class:`monai.losses.PatchAdversarialLoss`.
        constraint_weight: lambda; 0.5 in the paper.
        adversarial_weight: beta; 5e-4 for 256 x 256 pixels and 5e-3 for 512 x 512 in the paper.
        divergence_weight: weight of a VAE's divergence per pixel.
        mixture: gamma of ACAI: D1 also sees reconstructions mixed with this fraction of the slice, as not interpolated.
        steps: "unsupervised", "supervised", or both.
        prepare_batch: see :class:`monai.engines.SupervisedTrainer`; by default MONAI's ``PrepareBatchExtraInput`` with
            "alpha".
        **kwargs: see :class:`CriticTrainer`.

    Raises:
        ValueError: if a weight is negative, a critic that is needed is missing, or the steps are unknown.

    Example:
        >>> from monai_sliceinterp.networks.nets import HRINetAutoencoder
        >>> network = HRINetAutoencoder(channels=(4, 4), latent_channels=(2, 2))
        >>> slices = torch.rand(2, 5, 16, 16)  # two groups of five slices
        >>> batch = {"image": slices[:, ::4], "label": slices[:, 1:4], "alpha": torch.tensor([[0.25, 0.5, 0.75]] * 2)}
        >>> trainer = AlternatingSupervisionTrainer(
        ...     device="cpu",
        ...     max_epochs=1,
        ...     train_data_loader=[batch, batch],
        ...     autoencoder=network,
        ...     autoencoder_optimizer=torch.optim.Adam(network.parameters()),
        ...     content_loss=nn.MSELoss(),
        ...     constraint_weight=0.0,
        ...     adversarial_weight=0.0,
        ... )
        >>> trainer.run()
        >>> sorted(map(str, trainer.state.output))  # of the second iteration, Step II
        ['image', 'label', 'loss', 'pred', 'supervised']
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable[Any],
        autoencoder: nn.Module,
        autoencoder_optimizer: Optimizer,
        content_loss: Callable[[Tensor, Tensor], Tensor],
        constraint_critic: nn.Module | None = None,
        constraint_optimizer: Optimizer | None = None,
        patch_critic: nn.Module | None = None,
        patch_optimizer: Optimizer | None = None,
        adversarial_loss: Callable[..., Any] | None = None,
        constraint_weight: float = 0.5,
        adversarial_weight: float = 5e-4,
        divergence_weight: float = 0.0,
        mixture: float = 0.2,
        steps: str | Sequence[str] = STEPS,
        prepare_batch: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.constraint_weight = checks.not_negative("constraint_weight", constraint_weight)
        self.adversarial_weight = checks.not_negative("adversarial_weight", adversarial_weight)
        self.divergence_weight = checks.not_negative("divergence_weight", divergence_weight)
        self.mixture = checks.fraction("mixture", mixture)
        self.steps = checks.some_of("steps", steps, STEPS)
        networks, optimizers = {"autoencoder": autoencoder}, {"autoencoder": autoencoder_optimizer}
        if "unsupervised" in self.steps:
            critics = {
                "constraint_critic": (constraint_critic, constraint_optimizer, constraint_weight),
                "patch_critic": (patch_critic, patch_optimizer, adversarial_weight),
            }
            for name, (critic, optimizer, weight) in critics.items():
                if weight and (critic is None or optimizer is None):
                    raise ValueError(f"a weight of {weight:g} needs a {name} and its optimizer; expected them, or 0.")
                if weight and critic is not None and optimizer is not None:
                    networks[name], optimizers[name] = critic, optimizer
            if adversarial_weight and adversarial_loss is None:
                raise ValueError("a patch_critic needs an adversarial_loss.")
        super().__init__(
            device,
            max_epochs,
            train_data_loader,
            networks,
            optimizers,
            prepare_batch=PrepareBatchExtraInput({"alpha": "alpha"}) if prepare_batch is None else prepare_batch,
            **kwargs,
        )
        self.content_loss = content_loss
        self.adversarial_loss: Any = adversarial_loss

    def _iteration(self, engine: Any, batchdata: Mapping[str, Any]) -> dict[str, Any]:  # engine is self
        inputs, targets, _, keywords = engine.prepare_batch(
            batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs
        )
        output: dict[str, Any] = {CommonKeys.IMAGE: inputs, CommonKeys.LABEL: targets}
        engine.state.output = output
        for network in engine.networks.values():
            network.train()
        step = engine.steps[(engine.state.iteration - 1) % len(engine.steps)]
        if step == "supervised":
            losses = engine._supervised(inputs, targets, keywords["alpha"], output)
        else:
            losses = engine._unsupervised(inputs, output)
        output.update({name: value.detach() for name, value in losses.items()})
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.update("autoencoder", losses["loss"])
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def _supervised(self, inputs: Tensor, targets: Tensor, alpha: Tensor, output: dict[str, Any]) -> dict[str, Tensor]:
        """Step II: synthesize the slices between the ends of each group."""
        with self.autocast():
            pred = self.networks["autoencoder"](inputs, alpha)
        output[CommonKeys.PRED] = pred
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        channels = inputs.shape[1] // 2
        loss = self.content_loss(_as_slices(pred.to(targets.dtype), channels), _as_slices(targets, channels))
        return {"supervised": loss, "loss": loss}

    def _unsupervised(self, inputs: Tensor, output: dict[str, Any]) -> dict[str, Tensor]:
        """Step I: reconstruct slices, and mix those of different samples."""
        first, second = inputs.chunk(2, dim=1)
        # a slice's partner is of another sample, half a batch away: mostly not of its volume
        pairs = torch.cat([first, second.roll(max(len(second) // 2, 1), dims=0)], dim=1)
        alpha = 0.5 - (torch.rand(len(pairs)) - 0.5).abs()
        alpha = alpha.to(inputs)
        autoencoder = self.networks["autoencoder"]
        divergence = None
        with self.autocast():
            if self.divergence_weight:
                result, divergence = autoencoder(pairs, alpha, reconstruct=True, divergence=True)
            else:
                result = autoencoder(pairs, alpha, reconstruct=True)
        output[CommonKeys.PRED] = result
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        channels = first.shape[1]
        slices = _as_slices(pairs, channels)
        result = result.to(slices.dtype)  # out of mixed precision
        reconstructions, mixtures = _as_slices(result[:, : 2 * channels], channels), result[:, 2 * channels :]
        losses = {"content": self.content_loss(reconstructions, slices)}
        loss = losses["content"]
        if divergence is not None:
            losses["divergence"] = divergence.to(slices.dtype).mean() / slices[0].numel()
            loss = loss + self.divergence_weight * losses["divergence"]
        if self.constraint_weight:
            losses["constraint_critic"] = self._update_constraint_critic(
                slices, reconstructions.detach(), mixtures.detach(), alpha
            )
            with self.frozen("constraint_critic") as critic, self.autocast():
                estimate = critic(mixtures)
            losses["constraint"] = estimate.to(slices.dtype).square().mean()
            loss = loss + self.constraint_weight * losses["constraint"]
        if self.adversarial_weight:
            losses["patch_critic"] = self._update_patch_critic(slices, mixtures.detach())
            with self.frozen("patch_critic") as critic:
                _, fake = self._verdicts(critic, slices, mixtures)
            losses["adversarial"] = self._judge(fake, target_is_real=True, for_discriminator=False)
            loss = loss + self.adversarial_weight * losses["adversarial"]
        losses["loss"] = loss
        return losses

    def _update_constraint_critic(
        self, slices: Tensor, reconstructions: Tensor, mixtures: Tensor, alpha: Tensor
    ) -> Tensor:
        """Update D1, which learns the coefficients of mixtures, and 0 for what is close to a slice (eq. 2)."""
        unmixed = torch.lerp(reconstructions, slices, self.mixture)
        with self.autocast():
            estimates = self.networks["constraint_critic"](torch.cat([mixtures, unmixed])).to(alpha.dtype)
        loss = F.mse_loss(estimates[: len(mixtures)], alpha) + estimates[len(mixtures) :].square().mean()
        self.update("constraint_critic", loss)
        return loss

    def _update_patch_critic(self, slices: Tensor, mixtures: Tensor) -> Tensor:
        """Update D2, which learns to distinguish slices from mixtures."""
        real, fake = self._verdicts(self.networks["patch_critic"], slices, mixtures)
        loss = 0.5 * (
            self._judge(real, target_is_real=True, for_discriminator=True)
            + self._judge(fake, target_is_real=False, for_discriminator=True)
        )
        self.update("patch_critic", loss)
        return loss

    def _verdicts(self, critic: nn.Module, slices: Tensor, mixtures: Tensor) -> tuple[Tensor, Tensor]:
        """Compute D2's logits of slices and of mixtures, in one batch of both.

        A critic with batch normalization judges an image by its batch: both steps have to show it the same one.
        """
        with self.autocast():
            logits = critic(torch.cat([slices, mixtures]))
        logits = logits[-1] if isinstance(logits, list) else logits  # some critics return their features before it
        real, fake = logits.split([len(slices), len(mixtures)])
        return real, fake

    def _judge(self, logits: Tensor, **kwargs: bool) -> Tensor:
        """Compute the adversarial loss, in float32 at least: binary cross-entropy is not for half precision."""
        return self.adversarial_loss(logits.to(torch.promote_types(logits.dtype, torch.float32)), **kwargs)


def _as_slices(images: Tensor, channels: int) -> Tensor:
    """Split images ``(B, T C, H, W)`` into slices ``(B T, C, H, W)``."""
    return images.unflatten(1, (-1, channels)).flatten(0, 1)
