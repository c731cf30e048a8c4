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

"""What bundle configs ask of what a user gives: switches and words, folders, weights; errors in one line."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

__all__ = [
    "INPUT_ERRORS",
    "as_bool",
    "as_choices",
    "check_checkpoint",
    "check_writable",
    "exit_on_error",
    "load_weights",
    "one_line",
]

T = TypeVar("T")

INPUT_ERRORS = (ValueError, TypeError, OSError, RuntimeError, MemoryError)
"""What a scan, a checkpoint or a folder that is not as it should be may raise."""


def one_line(error: BaseException) -> str:
    r"""Tell the root cause of an error in one line.

    Example:
        >>> one_line(ValueError("first line.\nsecond line"))
        'first line.'
    """
    while (cause := error.__cause__) is not None:
        # MONAI adds a line for each transform around the one that failed
        if not str(error).startswith("applying transform "):
            if str(error).startswith(str(cause)[:20] or " "):
                break  # says what raised it, and more
            own = isinstance(error, ValueError | ImportError)
            if own and (not isinstance(cause, ValueError) or str(cause) in str(error)):
                break  # our own message, which says more than what raised it
        error = cause
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def exit_on_error(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function; end the program with one line and exit status 1 if the input or a missing package is at fault.

    For use in bundle configs, where an exception would print pages of traceback.

    Args:
        function: what to call.
        *args: its arguments.
        **kwargs: its keyword arguments.

    Returns:
        What the function returns.

    Raises:
        SystemExit: with the error's message.

    Example:
        >>> exit_on_error(int, "7")
        7
    """
    try:
        return function(*args, **kwargs)
    except (*INPUT_ERRORS, ImportError) as error:
        message = one_line(error)
    raise SystemExit(f"error: {message}")


def as_bool(value: bool | str, name: str = "value") -> bool:
    """Read a switch: ``--keep_observed false`` on the command line reaches a bundle as the text "false".

    Raises:
        ValueError: if the value is neither true nor false.

    Example:
        >>> as_bool("false"), as_bool(True)
        (False, True)
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError(f"{name} must be true or false, got {value!r}.")


def as_choices(value: str | Sequence[str], known: Sequence[str], name: str = "value") -> list[str]:
    """Read one or several of some known words, in the order in which they are known.

    Raises:
        ValueError: if there is none, or an unknown one.

    Example:
        >>> as_choices("rfn", ["ami", "rfn"]), as_choices(["rfn", "ami"], ["ami", "rfn"])
        (['rfn'], ['ami', 'rfn'])
    """
    chosen = [value] if isinstance(value, str) else list(value)
    if not chosen or any(word not in known for word in chosen):
        raise ValueError(f"{name} must be one or more of {', '.join(known)}, got {value!r}.")
    return [word for word in known if word in chosen]


def check_writable(folder: str | Path) -> str:
    """Make a folder and check that files can be written into it.

    Raises:
        ValueError: if not.

    Example:
        >>> check_writable(tempfile.gettempdir()) == tempfile.gettempdir()
        True
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written to ({error.strerror or error}); expected a folder.") from error
    return str(folder)


def load_weights(network: nn.Module, path: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """Load weights into a network, and say what is wrong if they do not fit.

    Args:
        network: the network; it is changed in place.
        path: a state dict, or a checkpoint with one under "network", "network_def" or "model".
        device: device the weights are loaded to.

    Returns:
        ``network``.

    Raises:
        ValueError: with one line that names the file, if it is missing, truncated, or of another network.

    Example:
        >>> file = Path(tempfile.mkdtemp()) / "model.pt"
        >>> torch.save(nn.Linear(2, 2).state_dict(), file)
        >>> load_weights(nn.Linear(2, 2), file)
        Linear(in_features=2, out_features=2, bias=True)
    """
    _load_state(network, _read_checkpoint(path, device), path)
    return network


def _load_state(network: nn.Module, checkpoint: Any, path: str | Path) -> None:
    """Load weights that were read from ``path`` into a network, or say why they do not fit."""
    for key in ("network", "network_def", "model"):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
    if not isinstance(checkpoint, dict) or not all(torch.is_tensor(value) for value in checkpoint.values()):
        raise ValueError(f"{path}: holds no weights of a network; expected a state dict.")
    own = network.state_dict()
    problems = [f"lacks {key}" for key in own if key not in checkpoint]
    problems += [f"has the unknown {key}" for key in checkpoint if key not in own]
    problems += [
        f"has {key} of shape {tuple(checkpoint[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in checkpoint and checkpoint[key].shape != own[key].shape
    ]
    if problems:
        more = f" and {len(problems) - 1} more differences" if len(problems) > 1 else ""
        raise ValueError(f"{path}: is not a checkpoint of {type(network).__name__}: it {problems[0]}{more}.")
    network.load_state_dict(checkpoint)


def check_checkpoint(path: str | Path, network: nn.Module, entries: Sequence[str] = ("network",)) -> str:
    """Check that a training can be resumed from a checkpoint, so that the engine need not fail on it.

    Args:
        path: a checkpoint as MONAI's ``CheckpointSaver`` writes it, with the weights under "network".
        network: the network that is trained. The weights are loaded into it.
        entries: what the checkpoint has to hold.

    Raises:
        ValueError: with one line that names the file, if it is missing, truncated, of another network, or holds only
            the weights.

    Example:
        >>> file = Path(tempfile.mkdtemp()) / "checkpoint.pt"
        >>> torch.save({"network": nn.Linear(2, 2).state_dict()}, file)
        >>> check_checkpoint(file, nn.Linear(2, 2)) == str(file)
        True
    """
    checkpoint = _read_checkpoint(path, "cpu")
    missing = [entry for entry in entries if not isinstance(checkpoint, dict) or entry not in checkpoint]
    if missing:
        raise ValueError(
            f"{path}: lacks {', '.join(missing)}; expected a checkpoint that a training has saved to be resumed, not "
            "weights alone."
        )
    _load_state(network, checkpoint, path)
    return str(path)


def _read_checkpoint(path: str | Path, device: torch.device | str) -> Any:
    """Read what ``torch.save`` has written."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such checkpoint file.")
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises half a dozen types for truncated or foreign files
        raise ValueError(f"{path}: not a readable checkpoint (truncated, or not saved by torch.save).") from error
