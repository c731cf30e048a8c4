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

"""Trainers of networks against critics, built on MONAI's Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from ignite.metrics import Metric
from monai.engines import default_metric_cmp_fn
from monai.engines.trainer import Trainer
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer, SimpleInferer
from monai.transforms import Transform
from monai.utils import CommonKeys
from torch import Tensor, nn
from torch.optim import Optimizer

from monai_sliceinterp import checks
from monai_sliceinterp.engines.prepare import PrepareConditionalPairs
from monai_sliceinterp.precision import amp_setting, autocast_to, needs_loss_scaling, network_dtype

__all__ = ["ConditionalGANTrainer", "CriticTrainer"]


class CriticTrainer(Trainer):
    """Base of trainers that update several networks, each by its own optimizer and loss.

    A subclass defines ``_iteration``. It runs networks within :meth:`autocast`, applies each loss by :meth:`update`,
    and uses :meth:`frozen` for critics that must not learn from a loss. MONAI's two GAN trainers do not fit conditional
    GANs: in ``GanTrainer`` the generator never sees the batch, ``AdversarialTrainer`` shows the critic the inputs as
    targets.

    Args:
        device: device that the batches are moved to.
        max_epochs: number of epochs.
        train_data_loader: batches.
        networks: networks by name, already on the device.
        optimizers: the optimizer of each network that is trained, by the network's name.
        prepare_batch: see :class:`monai.engines.SupervisedTrainer`.
        epoch_length: batches per epoch; all by default.
        non_blocking: copy batches asynchronously.
        postprocessing: transforms of the output.
        key_train_metric: metric that is computed during training.
        additional_metrics: more metrics.
        metric_cmp_fn: decides whether a metric is better than the best so far.
        train_handlers: event handlers.
        amp: precision of the networks, see :func:`monai_sliceinterp.precision.network_dtype`.
        decollate: split batches before postprocessing.
        to_kwargs: passed to ``prepare_batch``.
        max_grad_norm: largest norm of a network's gradient; larger gradients are scaled down, so that a critic that
            suddenly finds a difference does not derail a network without normalization. None: no limit.

    Raises:
        ValueError: if an optimizer belongs to no network, ``max_grad_norm`` is not positive, or ``amp`` is unknown.
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable[Any],
        networks: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        prepare_batch: Callable[..., Any],
        epoch_length: int | None = None,
        non_blocking: bool = False,
        postprocessing: Transform | None = None,
        key_train_metric: dict[str, Metric] | None = None,
        additional_metrics: dict[str, Metric] | None = None,
        metric_cmp_fn: Callable[..., bool] = default_metric_cmp_fn,
        train_handlers: Sequence[Any] | None = None,
        amp: bool | str = False,
        decollate: bool = False,
        to_kwargs: dict[str, Any] | None = None,
        max_grad_norm: float | None = None,
    ) -> None:
        if max_grad_norm is not None:
            checks.positive("max_grad_norm", max_grad_norm)
        unknown = set(optimizers) - set(networks)
        if unknown:
            raise ValueError(f"optimizers of unknown networks {sorted(unknown)}; expected some of {sorted(networks)}.")
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            epoch_length=epoch_length,
            non_blocking=non_blocking,
            prepare_batch=prepare_batch,
            postprocessing=postprocessing,
            key_metric=key_train_metric,
            additional_metrics=additional_metrics,
            metric_cmp_fn=metric_cmp_fn,
            handlers=train_handlers,
            decollate=decollate,
            to_kwargs=to_kwargs,
        )
        self.networks, self.optimizers = dict(networks), dict(optimizers)
        self.max_grad_norm = max_grad_norm
        self.network_amp = amp_setting(amp)
        scaled = needs_loss_scaling(self.network_amp, device)
        self.scalers = {name: torch.amp.GradScaler(torch.device(device).type, enabled=scaled) for name in optimizers}

    def autocast(self) -> torch.autocast:
        """Create the context in which networks run; losses are computed outside of it, in float32."""
        return autocast_to(network_dtype(self.network_amp, self.state.device), self.state.device)

    def update(self, name: str, loss: Tensor) -> None:
        """Update one network by a step of its optimizer on a loss."""
        optimizer, scaler = self.optimizers[name], self.scalers[name]
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        if self.max_grad_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self.networks[name].parameters(), self.max_grad_norm)
        scaler.step(optimizer)
        scaler.update()

    @contextmanager
    def frozen(self, name: str) -> Iterator[nn.Module]:
        """Freeze the parameters of a network while the loss of another one passes through it.

        The network comes without its wrapper for distributed training, which would wait for these gradients.
        """
        network = getattr(self.networks[name], "module", self.networks[name])
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        for parameter in parameters:
            parameter.requires_grad_(False)
        try:
            yield network
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)


class ConditionalGANTrainer(CriticTrainer):
    """Trainer of a generator against a discriminator that sees the input too (Virtual Thin Slice, eq. 1 and 2).

    Each iteration updates the discriminator once, then the generator once by
    ``reconstruction_weight * reconstruction_loss + adversarial_weight * adversarial_loss``. The output of the engine
    contains, beside image, label and prediction, every loss by name: "loss" (the generator's), "reconstruction",
    "adversarial", "discriminator".

    Args:
        device: device that the batches are moved to.
        max_epochs: number of epochs.
        train_data_loader: batches.
        generator: network from image to prediction.
        discriminator: network from the pair of image and label, or image and prediction, stacked as channels, and the
            keyword arguments that ``prepare_batch`` returns, to logits.
        generator_optimizer: optimizer of the generator.
        discriminator_optimizer: optimizer of the discriminator.
        reconstruction_loss: loss of prediction and label.
        adversarial_loss: such as :class:`monai.losses.PatchAdversarialLoss`.
        reconstruction_weight: lambda of eq. 2. The paper does not report its value.
        adversarial_weight: weight of the adversarial loss; 0 trains the generator alone.
        inferer: inferer that runs the generator.
        prepare_batch: see :class:`monai_sliceinterp.engines.PrepareConditionalPairs`, the default.
        **kwargs: see :class:`CriticTrainer`.

    Raises:
        ValueError: if a weight is negative.

    Example:
        >>> from monai.losses import PatchAdversarialLoss
        >>> from monai_sliceinterp.networks.nets import VTSDiscriminator, VTSGenerator
        >>> volume = torch.rand(2, 1, 8, 8, 8)
        >>> generator, discriminator = VTSGenerator((2, 4)), VTSDiscriminator((2, 4))
        >>> trainer = ConditionalGANTrainer(
        ...     device="cpu",
        ...     max_epochs=1,
        ...     train_data_loader=[{"image": volume, "label": volume, "condition": torch.zeros(2, 8)}],
        ...     generator=generator,
        ...     discriminator=discriminator,
        ...     generator_optimizer=torch.optim.Adam(generator.parameters()),
        ...     discriminator_optimizer=torch.optim.Adam(discriminator.parameters()),
        ...     reconstruction_loss=nn.L1Loss(),
        ...     adversarial_loss=PatchAdversarialLoss(criterion="least_squares"),
        ... )
        >>> trainer.run()
        >>> sorted(name for name, value in trainer.state.output.items() if value.ndim == 0)
        ['adversarial', 'discriminator', 'loss', 'reconstruction']
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable[Any],
        generator: nn.Module,
        discriminator: nn.Module,
        generator_optimizer: Optimizer,
        discriminator_optimizer: Optimizer,
        reconstruction_loss: Callable[[Tensor, Tensor], Tensor],
        adversarial_loss: Callable[..., Any],
        reconstruction_weight: float = 100.0,
        adversarial_weight: float = 1.0,
        inferer: Inferer | None = None,
        prepare_batch: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.reconstruction_weight = checks.not_negative("reconstruction_weight", reconstruction_weight)
        self.adversarial_weight = checks.not_negative("adversarial_weight", adversarial_weight)
        super().__init__(
            device,
            max_epochs,
            train_data_loader,
            {"generator": generator, "discriminator": discriminator},
            {"generator": generator_optimizer, "discriminator": discriminator_optimizer},
            prepare_batch=PrepareConditionalPairs() if prepare_batch is None else prepare_batch,
            **kwargs,
        )
        self.reconstruction_loss, self.adversarial_loss = reconstruction_loss, adversarial_loss
        self.inferer = SimpleInferer() if inferer is None else inferer

    def _iteration(self, engine: Any, batchdata: Mapping[str, Any]) -> dict[str, Any]:  # engine is self
        inputs, targets, _, condition = engine.prepare_batch(
            batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs
        )
        output: dict[str, Any] = {CommonKeys.IMAGE: inputs, CommonKeys.LABEL: targets}
        engine.state.output = output
        for network in engine.networks.values():
            network.train()
        with engine.autocast():
            pred = engine.inferer(inputs, engine.networks["generator"])
        output[CommonKeys.PRED] = pred
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        reconstruction = engine.reconstruction_loss(pred.float(), targets)
        losses = {"reconstruction": reconstruction}
        loss = engine.reconstruction_weight * reconstruction
        if engine.adversarial_weight:
            losses["discriminator"] = engine._update_discriminator(inputs, targets, pred.detach(), condition)
            with engine.frozen("discriminator") as discriminator:
                _, fake = engine._verdicts(discriminator, inputs, targets, pred, condition)
            losses["adversarial"] = engine.adversarial_loss(fake, target_is_real=True, for_discriminator=False)
            loss = loss + engine.adversarial_weight * losses["adversarial"]
        losses["loss"] = loss
        output.update({name: value.detach() for name, value in losses.items()})
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.update("generator", loss)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output  # which postprocessing has replaced

    def _update_discriminator(
        self, inputs: Tensor, targets: Tensor, pred: Tensor, condition: Mapping[str, Tensor]
    ) -> Tensor:
        """Update the discriminator, which learns to distinguish targets from predictions; return its loss."""
        real, fake = self._verdicts(self.networks["discriminator"], inputs, targets, pred, condition)
        loss = 0.5 * (
            self.adversarial_loss(real, target_is_real=True, for_discriminator=True)
            + self.adversarial_loss(fake, target_is_real=False, for_discriminator=True)
        )
        self.update("discriminator", loss)
        return loss

    def _verdicts(
        self, discriminator: nn.Module, inputs: Tensor, targets: Tensor, pred: Tensor, condition: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compute the logits of targets and of predictions, in one batch of both.

        A discriminator with batch normalization judges an image by the batch it is in: both steps have to show it the
        same one.
        """
        pairs = torch.cat([torch.cat([inputs, targets], dim=1), torch.cat([inputs, pred.to(inputs)], dim=1)])
        twice = {name: torch.cat([value, value]) for name, value in condition.items()}
        with self.autocast():
            real, fake = discriminator(pairs, **twice).float().chunk(2)
        return real, fake
