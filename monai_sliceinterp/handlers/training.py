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


"""Ignite handlers of trainings: seeds of epochs, frozen normalization, losses of several processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.transforms import Randomizable
from monai.utils import set_determinism
from torch import Tensor, nn

__all__ = ["EpochSeedHandler", "FreezeNormalizationHandler", "MeanLossHandler", "single_numbers"]


def single_numbers(output: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the entries of an engine's output that are single numbers: its losses.

    Example:
        >>> single_numbers({"image": torch.ones(2), "loss": torch.tensor(1.0)})
        {'loss': tensor(1.)}
    """
    return {name: value for name, value in output.items() if isinstance(value, Tensor) and value.ndim == 0}


class EpochSeedHandler:
    """Handler that seeds everything random at the start of every epoch, from the seed and the number of the epoch.

    A training that was killed and resumed from the checkpoint of an epoch then draws the same batches as one that ran
    through, and ends with the same weights.

    Args:
        transform: the random transforms of the training data, or a Compose that holds them.
        seed: seed of the training.

    Example:
        >>> handler = EpochSeedHandler(None, seed=3)
        >>> handler.attach(Engine(lambda engine, batch: None))
    """

    def __init__(self, transform: Randomizable | None, seed: int = 0) -> None:
        self.transform, self.seed = transform, seed

    def attach(self, engine: Engine) -> None:
        """Register the handler; it has to be attached before others that draw random numbers at the epoch's start."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed Python, NumPy, torch and the transforms."""
        # far apart for neighboring epochs and seeds; all generators take 32 bits
        seed = (self.seed * 1_000_003 + engine.state.epoch * 7_919) % 2**32
        set_determinism(seed=seed, use_deterministic_algorithms=False)
        if self.transform is not None:
            self.transform.set_random_state(seed=seed)


class FreezeNormalizationHandler:
    """Handler that trains the later epochs with the running statistics of batch normalization.

    Batches mix anatomies, volumes at inference do not: with few pairs in a batch its statistics differ so much from the
    running ones that the network behaves differently in training and in use. After a warm-up the statistics are frozen
    and the network learns to work with what it will have.

    Args:
        network: network derived from :class:`monai_sliceinterp.networks.blocks.FreezableNormalization`.
        warmup_epochs: epochs trained with the batch's statistics; None never freezes them, as in the paper.

    Example:
        >>> handler = FreezeNormalizationHandler(torch.nn.Linear(1, 1), warmup_epochs=5)
        >>> handler.attach(Engine(lambda engine, batch: None))
    """

    def __init__(self, network: nn.Module, warmup_epochs: int | None) -> None:
        self.network, self.warmup_epochs = getattr(network, "module", network), warmup_epochs

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Freeze or release the statistics according to the epoch."""
        frozen = self.warmup_epochs is not None and engine.state.epoch > self.warmup_epochs
        self.network.normalization_frozen = frozen


class MeanLossHandler:
    """Handler that replaces the losses of a process, once it has taken its step, by their means over all processes.

    Each of several processes computes the losses of its share of the global batch. What is logged behind this handler
    are those of the whole batch, as one process would log them. Every process needs it, before handlers that log.

    For engines whose output is a mapping (``decollate=False``); every tensor in it that is a single number is a loss.

    Example:
        >>> trainer = Engine(lambda engine, batch: {"image": batch, "loss": batch.mean()})
        >>> MeanLossHandler().attach(trainer)
        >>> trainer.run([torch.ones(2, 2)]).output["loss"]
        tensor(1.)
    """

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Replace the losses in the output of the engine."""
        output: Any = engine.state.output
        losses = single_numbers(output)
        # one exchange for all of them; the sum is taken in place, of copies
        total: Any = idist.all_reduce(torch.stack([loss.detach().float() for loss in losses.values()]))
        output.update(zip(losses, total / idist.get_world_size(), strict=True))
