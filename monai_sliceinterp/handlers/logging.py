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

"""Ignite handlers that show and log the course of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.handlers import StatsHandler, TensorBoardImageHandler, TensorBoardStatsHandler, from_engine
from monai.utils import CommonKeys
from torch import Tensor

from monai_sliceinterp.extras import require_package
from monai_sliceinterp.handlers.training import single_numbers
from monai_sliceinterp.precision import dtype_name, network_dtype

__all__ = ["TrainingLogHandler", "ValidationLogHandler"]


def _check_tensorboard() -> None:
    require_package("tensorboard", "the log of a training", "train")


class TrainingLogHandler:
    """Handler that shows a progress bar of the epoch and logs the losses of every iteration to TensorBoard.

    It tells in which precision networks compute, where that is not float32.

    For engines whose output is a mapping (``decollate=False``); every tensor in it that is a single number is a loss.
    One alone is logged as "train_loss", several under their names.

    Args:
        log_dir: folder of the log.
        name: name of the training, in the progress bar.

    Example:
        >>> import tempfile
        >>> TrainingLogHandler(tempfile.mkdtemp(), "VTS").attach(Engine(lambda engine, batch: {}))
    """

    def __init__(self, log_dir: str, name: str | None = None) -> None:
        _check_tensorboard()

        def losses(output: Mapping[str, Any]) -> dict[str, Tensor] | Tensor:
            numbers = single_numbers(output)
            return numbers if len(numbers) != 1 else next(iter(numbers.values()))

        self.bar = ProgressBar(persist=False, desc=name)
        self.board = TensorBoardStatsHandler(log_dir=log_dir, tag_name="train_loss", output_transform=losses)

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.STARTED, _log_precision)
        self.bar.attach(engine)
        self.board.attach(engine)


def _log_precision(trainer: Engine) -> None:
    """Tell in which precision the networks of a trainer compute: by its inferer, or by itself where it has several."""
    inferer = getattr(trainer, "inferer", None)
    amp = getattr(inferer, "amp", getattr(trainer, "network_amp", False))
    dtype = network_dtype(amp, getattr(trainer.state, "device", "cpu"))
    if dtype != torch.float32:
        trainer.logger.info("networks compute in %s; --amp false: in float32", dtype_name(dtype))


class _ScoresHandler(StatsHandler):
    """Handler that logs scores, and no errors, which are raised and reported anyway."""

    def exception_raised(self, _engine: Engine, e: Exception) -> None:
        """Raise the error."""
        raise e


class ValidationLogHandler:
    """Handler that logs the scores of a validation, and images beside their truth, to the console and TensorBoard.

    Args:
        log_dir: folder of the log.
        name: name of the logger that writes to the console.
        max_frames: largest number of slices of a volume that are logged.

    Example:
        >>> import tempfile
        >>> ValidationLogHandler(tempfile.mkdtemp()).attach(Engine(lambda *_: {}))
    """

    def __init__(self, log_dir: str, name: str = "validate", max_frames: int = 24) -> None:
        _check_tensorboard()

        def nothing(output: object) -> None:
            """The engine's output is volumes, which are not for the log."""

        self.handlers = (
            _ScoresHandler(name=name, iteration_log=False, output_transform=nothing),
            TensorBoardStatsHandler(log_dir=log_dir, iteration_log=False, output_transform=nothing),
            TensorBoardImageHandler(
                log_dir=log_dir,
                interval=1,
                batch_transform=from_engine([CommonKeys.IMAGE, CommonKeys.LABEL]),
                output_transform=from_engine([CommonKeys.PRED]),
                frame_dim=-1,
                max_frames=max_frames,
            ),
        )

    def attach(self, engine: Engine) -> None:
        """Register with the validation engine."""
        for handler in self.handlers:
            handler.attach(engine)
