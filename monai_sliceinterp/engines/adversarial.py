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

"""Training of networks against critics, on MONAI's Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from ignite.metrics import Metric
from monai.data import MetaTensor
from monai.engines import PrepareBatch, default_metric_cmp_fn
from monai.engines.trainer import Trainer
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer, SimpleInferer
from monai.transforms import Transform
from monai.utils import CommonKeys
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["ConditionalGANTrainer", "CriticTrainer", "PrepareConditionalPairs"]


class CriticTrainer(Trainer):
    """Base of trainers that update several networks, each by its own optimizer and loss.

    A subclass defines ``_iteration``. It runs networks within :meth:`autocast`, applies each loss by :meth:`update`,
    and passes through critics that shall not learn from a loss within :meth:`frozen`. MONAI's two GAN trainers do not
    fit conditional GANs: in one the generator never sees the batch, the other shows the critic inputs as targets.

    Args:
        device: where the batches go.
        max_epochs: number of epochs.
        train_data_loader: batches.
        networks: networks by name, already on the device.
        optimizers: the optimizer of each network that is trained, by the network's name.
        prepare_batch: see :class:`monai.engines.SupervisedTrainer`.
        epoch_length: batches per epoch; all by default.
        non_blocking: copy batches asynchronously.
        postprocessing: transforms of the output.
        key_train_metric: metric that is computed while training.
        additional_metrics: more metrics.
        metric_cmp_fn: tells whether a metric is better than the best so far.
        train_handlers: event handlers.
        amp: mixed precision (CUDA).
        decollate: split batches before postprocessing.
        to_kwargs: passed to ``prepare_batch``.
        amp_kwargs: passed to ``torch.autocast``.
        max_grad_norm: largest norm of a network's gradient; larger ones are scaled down, so that a critic that suddenly
            finds a difference does not throw a network without normalization off its course. None: no limit.

    Raises:
        ValueError: if an optimizer belongs to no network, or ``max_grad_norm`` is not positive.
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
        amp: bool = False,
        decollate: bool = False,
        to_kwargs: dict[str, Any] | None = None,
        amp_kwargs: dict[str, Any] | None = None,
        max_grad_norm: float | None = None,
    ) -> None:
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be positive, or None for no limit, got {max_grad_norm!r}.")
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
            amp=amp,
            decollate=decollate,
            to_kwargs=to_kwargs,
            amp_kwargs=amp_kwargs,
        )
        self.networks, self.optimizers = dict(networks), dict(optimizers)
        self.max_grad_norm = max_grad_norm
        device_type = torch.device(device).type
        self.scalers = {
            name: torch.amp.GradScaler(device_type, enabled=amp and device_type == "cuda") for name in optimizers
        }

    def autocast(self) -> torch.autocast:
        """Context in which networks run; losses are computed outside of it, in float32."""
        device_type = torch.device(self.state.device).type
        return torch.autocast(device_type, enabled=self.amp and device_type == "cuda", **self.amp_kwargs)

    def update(self, name: str, loss: Tensor) -> None:
        """Take a step of one network's optimizer down a loss."""
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
        """Give a network whose parameters take no gradient, for the loss of another one that passes through it.

        Without the wrapper for distributed training, which would wait for these gradients.
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
    """Train a generator against a discriminator that sees the input too (Virtual Thin Slice, eq. 1 and 2).

    Each iteration updates the discriminator once, then the generator once by
    ``reconstruction_weight * reconstruction_loss + adversarial_weight * adversarial_loss``. The output of the engine
    has, beside image, label and prediction, every loss by name: "loss" (the generator's), "reconstruction",
    "adversarial", "discriminator".

    Args:
        device: where the batches go.
        max_epochs: number of epochs.
        train_data_loader: batches.
        generator: network from image to prediction.
        discriminator: network from the pair of image and label, or image and prediction, stacked as channels, and the
            keyword arguments that ``prepare_batch`` returns, to logits.
        generator_optimizer: optimizer of the generator.
        discriminator_optimizer: optimizer of the discriminator.
        reconstruction_loss: compares prediction and label.
        adversarial_loss: such as :class:`monai.losses.PatchAdversarialLoss`.
        reconstruction_weight: lambda of eq. 2. The paper does not tell its value.
        adversarial_weight: weight of the adversarial loss; 0 trains the generator alone.
        inferer: runs the generator.
        prepare_batch: see :class:`PrepareConditionalPairs`.
        **kwargs: see :class:`CriticTrainer`.

    Raises:
        ValueError: if a weight is negative.

    Example:
        See ``bundles/vts/train.json``.
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
        if not (reconstruction_weight >= 0 and adversarial_weight >= 0):
            raise ValueError(
                f"the weights of the losses must not be negative, got {reconstruction_weight!r} and "
                f"{adversarial_weight!r}."
            )
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
        self.reconstruction_weight, self.adversarial_weight = reconstruction_weight, adversarial_weight
        self.inferer = SimpleInferer() if inferer is None else inferer

    def _iteration(self, engine: Any, batchdata: Mapping[str, Any]) -> dict[str, Any]:
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
            with engine.frozen("discriminator") as discriminator, engine.autocast():
                logits = discriminator(torch.cat([inputs, pred], dim=1), **condition)
            losses["adversarial"] = engine.adversarial_loss(
                logits.float(), target_is_real=True, for_discriminator=False
            )
            loss = loss + engine.adversarial_weight * losses["adversarial"]
        losses["loss"] = loss
        output.update({name: value.detach() for name, value in losses.items()})
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.update("generator", loss)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output  # which postprocessing has replaced

    def _update_discriminator(
        self, inputs: Tensor, targets: Tensor, made: Tensor, condition: Mapping[str, Tensor]
    ) -> Tensor:
        """Teach the discriminator to tell targets from what was made; return its loss."""
        # one pass for both, so that batch normalization sees true and made volumes alike
        pairs = torch.cat([torch.cat([inputs, targets], dim=1), torch.cat([inputs, made.to(inputs)], dim=1)])
        both = {name: torch.cat([value, value]) for name, value in condition.items()}
        with self.autocast():
            true, false = self.networks["discriminator"](pairs, **both).float().chunk(2)
        loss = 0.5 * (
            self.adversarial_loss(true, target_is_real=True, for_discriminator=True)
            + self.adversarial_loss(false, target_is_real=False, for_discriminator=True)
        )
        self.update("discriminator", loss)
        return loss


class PrepareConditionalPairs(PrepareBatch):
    """Prepare batches of pairs for a conditional GAN: image, label, and the condition where there is one.

    Args:
        condition_key: where the batch has the condition ``(B, K)``; None: there is none.

    Example:
        >>> batch = {
        ...     "image": torch.rand(2, 1, 8, 8, 8),
        ...     "label": torch.rand(2, 1, 8, 8, 8),
        ...     "condition": torch.zeros(2, 8),
        ... }
        >>> inputs, targets, _, keywords = PrepareConditionalPairs()(batch)
        >>> tuple(inputs.shape), tuple(keywords["condition"].shape)
        ((2, 1, 8, 8, 8), (2, 8))
    """

    def __init__(self, condition_key: str | None = "condition") -> None:
        self.condition_key = condition_key

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Tensor]]:
        """Return image, label and keyword arguments of the discriminator, as plain tensors."""

        def move(key: str) -> Tensor:
            value = batchdata[key]
            plain = value.as_tensor() if isinstance(value, MetaTensor) else value
            return plain.to(device=device, non_blocking=non_blocking, **kwargs)

        condition = {} if self.condition_key is None else {"condition": move(self.condition_key)}
        return move(CommonKeys.IMAGE), move(CommonKeys.LABEL), (), condition
