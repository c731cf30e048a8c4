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


"""Load, check and save the weights of networks and the state of trainings."""

from __future__ import annotations

import contextlib
import functools
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import CheckpointSaver
from torch import nn

from monai_sliceinterp.checks import check_device
from monai_sliceinterp.engines.descriptions import add_description, check_description, read_description
from monai_sliceinterp.engines.quantized import use_engine
from monai_sliceinterp.files import atomic_path, file_sha256, typed_path
from monai_sliceinterp.interruption import when_interrupted
from monai_sliceinterp.temporary import sweep

__all__ = ["AtomicCheckpointSaver", "BestModelSaver", "check_checkpoint", "load_weights"]


def load_weights(
    network: nn.Module,
    path: str | Path,
    device: torch.device | str = "cpu",
    shipped: Mapping[str, Mapping[str, Any]] | None = None,
    engine: str = "torch",
) -> nn.Module:
    """Load weights into a network.

    Args:
        network: the network; it is changed in place.
        path: a state dict, or a checkpoint with one under "network", "network_def" or "model".
        device: device the weights are loaded to.
        shipped: the weights of a bundle as its metadata list them: "sha256", "network" and "settings" by the name of
            the file. A file in a folder "models" of such a name has to be that one, and weights that are one of them,
            wherever they lie, have to be of this network.
        engine: what computes the network, see :func:`monai_sliceinterp.engines.quantized.use_engine`.

    Returns:
        ``network``.

    Raises:
        ValueError: with one line that names the file, if it is missing, truncated, changed, or of another network, of
            which it names what differs.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "model.pt"
        >>> torch.save(nn.Linear(2, 2).state_dict(), file)
        >>> load_weights(nn.Linear(2, 2), file)
        Linear(in_features=2, out_features=2, bias=True)
    """
    check_device(device)
    path = typed_path(path)
    checkpoint = _read_checkpoint(path, device)
    if shipped:
        _check_shipped(path, network, shipped)
    _load_state(network, checkpoint, path)
    check_description(path, read_description(path), network)
    return use_engine(network, engine, path, device, shipped)


def _check_shipped(path: str, network: nn.Module, shipped: Mapping[str, Mapping[str, Any]]) -> None:
    """Check weights against those that a bundle ships."""
    found, file = file_sha256(path), Path(path)
    expected = shipped.get(file.name, {}).get("sha256", found)
    if file.absolute().parent.name == "models" and found != expected:
        raise ValueError(
            f"{path}: is not the file that the bundle ships (SHA-256 {found[:16]}..., not {expected[:16]}...); "
            "expected that one, or own weights elsewhere, as --ckpt."
        )
    for entry in shipped.values():
        if entry["sha256"] == found and "network" in entry:
            check_description(path, entry, network)


def _load_state(network: nn.Module, checkpoint: Any, path: str | Path) -> None:
    """Load weights that were read from ``path`` into a network, or say why they do not fit."""
    for key in ("network", "network_def", "model"):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
    if not isinstance(checkpoint, dict) or not all(torch.is_tensor(value) for value in checkpoint.values()):
        raise ValueError(f"{path}: holds no weights of a network; expected a state dict.")
    expected = network.state_dict()
    problems = [f"lacks {key}" for key in expected if key not in checkpoint]
    problems += [f"has the unknown {key}" for key in checkpoint if key not in expected]
    problems += [
        f"has {key} of shape {tuple(checkpoint[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in checkpoint and checkpoint[key].shape != expected[key].shape
    ]
    problems += [
        f"has {key} of type {value.dtype} instead of {expected[key].dtype}"
        for key, value in checkpoint.items()
        if key in expected and value.dtype.is_floating_point != expected[key].dtype.is_floating_point
    ]
    problems += [
        f"has {key} with values that are not finite"
        for key, value in checkpoint.items()
        if value.is_floating_point() and not value.isfinite().all()
    ]
    if problems:
        more = f" and {len(problems) - 1} more differences" if len(problems) > 1 else ""
        raise ValueError(f"{path}: is not a checkpoint of {type(network).__name__}: it {problems[0]}{more}.")
    network.load_state_dict(checkpoint)


def check_checkpoint(path: str | Path, network: nn.Module, entries: Sequence[str] = ("network",)) -> str:
    """Check that a training can be resumed from a checkpoint.

    Args:
        path: a checkpoint as MONAI's ``CheckpointSaver`` writes it, with the weights under "network".
        network: the network that is trained. The weights are loaded into it.
        entries: what the checkpoint has to hold.

    Raises:
        ValueError: with one line that names the file, if it is missing, truncated, of another network, or holds only
            the weights.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "checkpoint.pt"
        >>> torch.save({"network": nn.Linear(2, 2).state_dict()}, file)
        >>> check_checkpoint(file, nn.Linear(2, 2)) == str(file)
        True
    """
    path = typed_path(path)
    checkpoint = _read_checkpoint(path, "cpu")
    missing = [entry for entry in entries if not isinstance(checkpoint, dict) or entry not in checkpoint]
    if missing:
        raise ValueError(
            f"{path}: lacks {', '.join(missing)}; expected a checkpoint that a training has saved to be resumed, not "
            "weights alone."
        )
    _load_state(network, checkpoint, path)
    check_description(path, read_description(path), network)
    return str(path)


def _read_checkpoint(path: str | Path, device: torch.device | str) -> Any:
    """Read what ``torch.save`` has written."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such checkpoint file.")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                damaged = file.testzip()  # torch checks no sums
            if damaged is not None:
                raise zipfile.BadZipFile(f"the sum of {damaged} is wrong")
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises half a dozen types for truncated or foreign files
        raise ValueError(f"{path}: not a readable checkpoint (damaged, or not saved by torch.save).") from error


class AtomicCheckpointSaver(CheckpointSaver):
    """Checkpoint saver of MONAI whose files are written under a temporary name and renamed.

    A training killed while it saves then leaves no truncated checkpoint. One that is interrupted or fails in an epoch
    leaves the state at the end of the last whole one, from which it resumes to the very result of one that ran through;
    MONAI would save the middle of the epoch.

    Args:
        save_dir: folder of the checkpoints.
        save_dict: what is saved, by name.
        save_interval: epochs from one checkpoint to the next, of which the last two are kept.
        final_filename: file of the state at the end of the training.
        options: what has to be given beside ``--ckpt`` to resume, for the line that tells how to go on.
        **kwargs: see :class:`monai.handlers.CheckpointSaver`.

    Example:
        >>> import tempfile
        >>> saver = AtomicCheckpointSaver(tempfile.mkdtemp(), {"network": torch.nn.Linear(1, 1)}, save_interval=1)
        >>> saver.attach(Engine(lambda engine, batch: None))
    """

    def __init__(
        self,
        save_dir: str,
        save_dict: dict[str, Any],
        save_interval: int,
        final_filename: str = "checkpoint.pt",
        options: str = "",
        **kwargs: Any,
    ) -> None:
        network = save_dict.get("network")
        self._network = getattr(network, "module", network)
        settings = {"n_saved": 2, "save_final": True, **kwargs}
        super().__init__(save_dir, save_dict, save_interval=save_interval, final_filename=final_filename, **settings)
        for checkpoint in (self._final_checkpoint, self._key_metric_checkpoint, self._interval_checkpoint):
            if checkpoint is not None:
                handler: Any = checkpoint.save_handler
                handler._save_func = functools.partial(_save_whole, network=self._network)
        sweep(save_dir)
        self.final_path, self.options = Path(save_dir) / final_filename, options
        self._whole_epochs, self._state, self._watch = 0, b"", contextlib.ExitStack()

    def attach(self, engine: Engine) -> None:
        """Register with the trainer, before handlers that change something at the start of an epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._remember)
        super().attach(engine)
        engine.add_event_handler(Events.COMPLETED, self._forget)

    def _remember(self, engine: Engine) -> None:
        """Keep the state between two epochs; it is written where the next one does not come to its end."""
        state = io.BytesIO()
        saved: Any = self._final_checkpoint
        torch.save(saved._setup_checkpoint(), state)
        if self._network is not None:
            add_description(state, self._network)
        if not self._state:
            self._on_interruption(self.save_last_epoch)
        self._whole_epochs, self._state = engine.state.epoch - 1, state.getvalue()

    def _forget(self, engine: Engine) -> None:
        """The final checkpoint is written."""
        self._state = b""
        self._on_interruption(self._how_to_use)

    def _on_interruption(self, action: Callable[[], str]) -> None:
        self._watch.close()
        self._watch.enter_context(when_interrupted(action))

    def _how_to_use(self) -> str:
        return f"{self.final_path} is complete; where stages are left, the same command with --ckpt and it goes on."

    def save_last_epoch(self) -> str:
        """Write the state at the end of the last whole epoch and return how to go on from there.

        Raises:
            OSError: if it cannot be written.
        """
        with atomic_path(self.final_path) as part:
            part.write_bytes(self._state)
        options = f" {self.options}" if self.options else ""
        return (
            f"{self._whole_epochs} whole epochs are saved; the same command with --ckpt {self.final_path}{options} "
            "goes on, to the very result of one that ran through."
        )

    def exception_raised(self, engine: Engine, e: Exception) -> None:
        """Save the last whole epoch, if there is one, and raise the error; an interruption has been seen to already."""
        self._watch.close()
        if self._whole_epochs and not isinstance(e, SystemExit):
            with contextlib.suppress(OSError):  # it is the error that matters, such as a full disk
                self.save_last_epoch()
        raise e


def _save_whole(checkpoint: Any, path: str | Path, save: Any = None, network: Any = None) -> None:
    """Save a checkpoint, whole or not at all, with the description of its network."""
    content = io.BytesIO()  # torch has an error of its own for a disk that is full
    (save or torch.save)(checkpoint, content)
    if isinstance(network, nn.Module):
        add_description(content, network)
    with atomic_path(path) as part:
        part.write_bytes(content.getvalue())


class BestModelSaver:
    """Handler that writes the weights whenever validation finds them the best so far.

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
            _save_whole(self.network.state_dict(), self.path, network=self.network)

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
            _save_whole(dict(state_dict["weights"]), self.path, network=self.network)
