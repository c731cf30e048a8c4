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

"""What the training engines of the bundles need beside MONAI's: batches of slice pairs, exact resuming."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import PrepareBatch
from monai.handlers import CheckpointSaver
from monai.transforms import Randomizable
from monai.utils import CommonKeys, set_determinism
from torch import Tensor, nn

from monai_sliceinterp.files import atomic_path

__all__ = [
    "AtomicCheckpointSaver",
    "BestModelSaver",
    "EpochSeedHandler",
    "FreezeNormalizationHandler",
    "MeanLossHandler",
    "PrepareSliceBlocks",
    "PrepareSliceGroups",
    "PrepareSlicePairs",
    "PrepareViewImages",
    "check_start",
    "check_validation",
]


def check_start(stages: Sequence[str], pretrained: str, ckpt: str, first: str = "ami", second: str = "rfn") -> None:
    """Check that a training in two stages has something to start from where its first stage is left out.

    Args:
        stages: stages to be trained.
        pretrained: file of weights to start from, or "".
        ckpt: checkpoint to resume from, or "".
        first: name of the first stage.
        second: name of the second stage, which continues what the first has trained.

    Raises:
        ValueError: if the second stage is to be trained on a network that nobody has trained.

    Example:
        >>> check_start(["ami", "rfn"], pretrained="", ckpt="")
    """
    if first not in stages and not pretrained and not ckpt:
        raise ValueError(
            f"stage {second} needs what stage {first} has trained: give its weights as pretrained, or train stage "
            f"{first} first."
        )


def check_validation(max_epochs: int, val_interval: int, names: Sequence[str] = ("max_epochs", "val_interval")) -> None:
    """Check that a training is validated at least once, as validation chooses the weights.

    Args:
        max_epochs: number of epochs.
        val_interval: epochs from one validation to the next.
        names: what both are called in the config.

    Raises:
        ValueError: if the training would end before the first validation.

    Example:
        >>> check_validation(max_epochs=20, val_interval=10)
    """
    if not 1 <= val_interval <= max_epochs:
        raise ValueError(
            f"{names[1]} {val_interval} does not fit {names[0]} {max_epochs}: no validation would choose the weights; "
            f"expected 1 to {max_epochs}."
        )


class AtomicCheckpointSaver(CheckpointSaver):
    """MONAI's ``CheckpointSaver``, with files written under a temporary name and renamed.

    A training killed while it saves then leaves no truncated checkpoint.

    Args:
        save_dir: folder of the checkpoints.
        save_dict: what is saved, by name.
        **kwargs: see :class:`monai.handlers.CheckpointSaver`.

    Example:
        >>> import tempfile
        >>> saver = AtomicCheckpointSaver(tempfile.mkdtemp(), {"network": torch.nn.Linear(1, 1)}, save_interval=1)
        >>> saver.attach(Engine(lambda engine, batch: None))
    """

    def __init__(self, save_dir: str, save_dict: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(save_dir, save_dict, **kwargs)
        for checkpoint in (self._final_checkpoint, self._key_metric_checkpoint, self._interval_checkpoint):
            if checkpoint is not None:
                handler: Any = checkpoint.save_handler
                handler._atomic = True  # MONAI turns it off for the sake of file modes, which ignite now sets


class PrepareSlicePairs(PrepareBatch):
    """Prepare batches of slice pairs for networks that return reconstructions and the synthesized slice together.

    For batches as :class:`monai_sliceinterp.transforms.RandSlicePairsd` draws them and networks derived from
    :class:`monai_sliceinterp.networks.nets.LatentInterpolator`.

    Example:
        >>> batch = {"image": torch.rand(4, 2, 8, 8), "label": torch.rand(4, 1, 8, 8), "alpha": torch.full((4,), 0.5)}
        >>> inputs, targets, _, keywords = PrepareSlicePairs()(batch)
        >>> tuple(inputs.shape), tuple(targets.shape), sorted(keywords)
        ((4, 2, 8, 8), (4, 3, 8, 8), ['alpha', 'reconstruct'])
    """

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Any]]:
        """Return the pairs ``(B, 2 C, H, W)``, the targets ``(B, 3 C, H, W)`` and the network's keyword arguments."""

        def move(key: str) -> Tensor:
            return batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs)

        image = move(CommonKeys.IMAGE)
        target = torch.cat([image, move(CommonKeys.LABEL)], dim=1)
        return image, target, (), {"alpha": move("alpha"), "reconstruct": True}


class PrepareSliceGroups(PrepareBatch):
    """Prepare batches of slice groups: the pair of ends, the slices between, and their places.

    For batches as :class:`monai_sliceinterp.transforms.RandSliceGroupsd` draws them.

    Example:
        >>> batch = {"image": torch.rand(4, 2, 8, 8), "label": torch.rand(4, 5, 8, 8), "alpha": torch.rand(4, 5)}
        >>> inputs, targets, _, keywords = PrepareSliceGroups()(batch)
        >>> tuple(inputs.shape), tuple(targets.shape), sorted(keywords)
        ((4, 2, 8, 8), (4, 5, 8, 8), ['alpha'])
    """

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Any]]:
        """Return the pairs ``(B, 2 C, H, W)``, the slices between ``(B, T C, H, W)`` and alpha ``(B, T)``."""
        image, label, alpha = (
            batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs)
            for key in (CommonKeys.IMAGE, CommonKeys.LABEL, "alpha")
        )
        return image, label, (), {"alpha": alpha}


class PrepareSliceBlocks(PrepareBatch):
    """Prepare batches of blocks for networks that interpolate volumes by a factor, given the spacings.

    For batches as :class:`monai_sliceinterp.transforms.RandSliceBlocksd` draws them, all blocks by one factor.

    Example:
        >>> block = {
        ...     "image": torch.rand(2, 1, 8, 6, 3),
        ...     "label": torch.rand(2, 1, 8, 6, 5),
        ...     "factor": torch.tensor([2, 2]),
        ... }
        >>> block.update(slice_spacing=torch.full((2,), 4.0), in_plane_spacing=torch.ones(2, 2))
        >>> inputs, targets, _, keywords = PrepareSliceBlocks()(block)
        >>> tuple(inputs.shape), tuple(targets.shape), keywords["factor"]
        ((2, 1, 8, 6, 3), (2, 1, 8, 6, 5), 2)
    """

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Any]]:
        """Return the blocks ``(B, 1, H, W, N)``, their truth, and factor and spacings as keyword arguments.

        Raises:
            ValueError: if the blocks have different factors.
        """

        def move(key: str) -> Tensor:
            return batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs)

        factors = set(torch.as_tensor(batchdata["factor"]).tolist())
        if len(factors) != 1:
            raise ValueError(f"a batch has blocks of factors {sorted(factors)}; expected one factor for all.")
        keywords = {
            "factor": int(factors.pop()),
            "slice_spacing": move("slice_spacing"),
            "in_plane_spacing": tuple(move("in_plane_spacing").unbind(dim=1)),
        }
        return move(CommonKeys.IMAGE), move(CommonKeys.LABEL), (), keywords


class PrepareViewImages(PrepareSliceBlocks):
    """Prepare batches of blocks three pixels high as images of a view with their neighbors.

    For :class:`monai_sliceinterp.networks.nets.AnisotropicMetaInterpolation` and blocks of
    :class:`monai_sliceinterp.transforms.RandSliceBlocksd` with a patch size of (3, L).

    Example:
        >>> block = {
        ...     "image": torch.rand(2, 1, 3, 6, 3),
        ...     "label": torch.rand(2, 1, 3, 6, 5),
        ...     "factor": torch.tensor([2, 2]),
        ... }
        >>> block.update(slice_spacing=torch.full((2,), 4.0), in_plane_spacing=torch.ones(2, 2))
        >>> inputs, targets, _, keywords = PrepareViewImages()(block)
        >>> tuple(inputs.shape), tuple(targets.shape), sorted(keywords)
        ((2, 3, 3, 6), (2, 1, 5, 6), ['factor', 'in_plane_spacing', 'slice_spacing'])
    """

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Any]]:
        """Return the images ``(B, 3, N, L)``, the true middle ones ``(B, 1, M, L)``, and factor and spacings."""
        image, label, _, keywords = super().__call__(batchdata, device, non_blocking, **kwargs)
        keywords["in_plane_spacing"] = keywords["in_plane_spacing"][1]
        return image[:, 0].movedim(-1, 2), label[:, 0, 1:2].movedim(-1, 2), (), keywords


class EpochSeedHandler:
    """Seed everything random anew at the start of every epoch, from the seed and the number of the epoch.

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
    """Train the later epochs with the running statistics of batch normalization instead of the batch's.

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
    """Replace the losses of a process, once it has taken its step, by their means over all processes.

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
        losses = {name: value for name, value in output.items() if isinstance(value, Tensor) and value.ndim == 0}
        # one exchange for all of them; the sum is taken in place, of copies
        total: Any = idist.all_reduce(torch.stack([loss.detach().float() for loss in losses.values()]))
        output.update(zip(losses, total / idist.get_world_size(), strict=True))


class BestModelSaver:
    """Write the weights whenever validation finds them the best so far.

    The best score is part of :meth:`state_dict`, so that a resumed training does not replace a better model by a worse
    one. Files are written under a temporary name and renamed.

    Args:
        network: the network whose state dict is written, without a wrapper for distributed training.
        path: the file.

    Example:
        >>> saver = BestModelSaver(torch.nn.Linear(1, 1), "model.pt")
        >>> saver.state_dict()
        {'best_metric': -1.0, 'best_metric_epoch': -1}
    """

    def __init__(self, network: nn.Module, path: str | Path) -> None:
        self.network, self.path = getattr(network, "module", network), Path(path)
        self.best_metric, self.best_metric_epoch = -1.0, -1

    def attach(self, engine: Engine) -> None:
        """Register with the validation engine, which compares its key metric with the best one itself."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._restore)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _restore(self, engine: Engine) -> None:
        state: Any = engine.state
        state.best_metric, state.best_metric_epoch = self.best_metric, self.best_metric_epoch

    def __call__(self, engine: Engine) -> None:
        """Save if the key metric has just improved."""
        state: Any = engine.state
        if state.best_metric_epoch != self.best_metric_epoch:
            self.best_metric, self.best_metric_epoch = float(state.best_metric), int(state.best_metric_epoch)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.path) as part:
                torch.save(self.network.state_dict(), part)

    def state_dict(self) -> dict[str, Any]:
        """Return the best score, its epoch and, once there are some, the best weights."""
        state: dict[str, Any] = {"best_metric": self.best_metric, "best_metric_epoch": self.best_metric_epoch}
        if self.best_metric_epoch >= 0 and self.path.is_file():
            state["weights"] = torch.load(self.path, map_location="cpu", weights_only=True)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the best score and its epoch, and the best weights where their file is not there."""
        self.best_metric, self.best_metric_epoch = state_dict["best_metric"], state_dict["best_metric_epoch"]
        if "weights" in state_dict and not self.path.is_file():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.path) as part:
                torch.save(dict(state_dict["weights"]), part)
