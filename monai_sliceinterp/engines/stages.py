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


"""Check a training before it starts: its stages, and that validation chooses its weights."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["check_start", "check_validation"]


def check_start(stages: Sequence[str], pretrained: str, ckpt: str, first: str = "ami", second: str = "rfn") -> None:
    """Check that a training in two stages has something to start from where its first stage is left out.

    Args:
        stages: stages to be trained.
        pretrained: file of weights to start from, or "".
        ckpt: checkpoint to resume from, or "".
        first: name of the first stage.
        second: name of the second stage, which continues what the first has trained.

    Raises:
        ValueError: if the second stage would continue an untrained network.

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
