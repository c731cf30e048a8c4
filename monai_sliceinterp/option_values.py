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

"""Values of options on the command line: of the kind that the config has there, and within sensible limits."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, cast

from monai_sliceinterp.checks import (
    finite,
    fraction,
    not_negative,
    positive,
    positive_integer,
    positive_integers,
    switch,
    two_numbers,
)
from monai_sliceinterp.precision import amp_setting

__all__ = ["check_values"]

_LARGEST = 2**32
"""Numbers that reach it are slips, or would take all memory; seeds are below it."""


def _integer(name: str, value: Any, least: int = 1) -> None:
    """Check a number that is handed on as it is, so that 2.0 does not count."""
    positive_integer(name, value, least)
    if isinstance(value, float):
        raise ValueError(f"{name} must be an integer, got {value!r}.")


def _integers(name: str, value: Any) -> None:
    positive_integers(name, value)
    if any(isinstance(number, float) for number in (value if _is_list(value) else [value])):
        raise ValueError(f"{name} must be one or more integers, got {value!r}.")


def _pixdim(name: str, value: Any) -> None:
    if not _is_list(value) or len(value) != 3:
        raise ValueError(f"{name} must be three numbers of mm, 0 for one that stays, got {value!r}.")
    for number in value:
        not_negative(name, number, "mm")


def _protocols(name: str, value: Any) -> None:
    if not _is_list(value) or not value or not all(isinstance(item, Mapping) for item in value):
        raise ValueError(f"{name} must be a list of degradations such as [{{'factor': 4, 'fwhm': 0}}], got {value!r}.")


def _condition(name: str, value: Any) -> None:
    if value != "condition":
        raise ValueError(f"{name} must be condition or None, got {value!r}.")


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text, got {value!r}.")


def _path(name: str, value: Any) -> None:
    if isinstance(value, Mapping) or (_is_list(value) and not value):
        raise ValueError(f"{name} must be a path, got {value!r}.")


def _amp(_: str, value: Any) -> None:
    amp_setting(value)


_CHECKS: dict[str, Callable[[str, Any], object]] = {
    "norm_warmup_epochs|val_batch_size|num_workers|seed|crop|min_remaining_slices|stem_channels|condition_channels|"
    "in_plane_size|data_consistency": (lambda name, value: _integer(name, value, 0)),
    "epochs|val_interval|batch_size|val_factor|num_slices|min_slices|stem": _integer,
    "samples_per_volume|samples_per_epoch|crops_per_volume": _integer,
    "patch_size|gap|factors|strides|channels": _integers,
    "final_learning_rate|weight|weight_decay|min_contrast|max_thickness|slice_thickness|thin_noise|val_sigma|val_fwhm|"
    "in_plane_spacing": not_negative,
    "learning_rate|max_spacing|max_grad_norm|max_distance|init_gain|residual_scale": positive,
    "prob|fraction|ema_momentum": fraction,
    "body_threshold|intensity_center": finite,
    "betas": lambda name, value: two_numbers(name, value, 0, 1),
    "percentiles": lambda name, value: two_numbers(name, value, 0, 100, ascending=True),
    "window": lambda name, value: two_numbers(name, value, ascending=True),
    "sigma_range|noise_range": lambda name, value: two_numbers(name, value, 0),
    "pixdim": _pixdim,
    "protocols": _protocols,
    "condition_key": _condition,
    "amp": _amp,
    "method": _text,
    "input|dataset_dir|output_dir|label|ckpt|pretrained|bundle_root|weights": _path,
}
"""How options are checked, by the names they end with; the first that fits counts."""


def check_values(options: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Check the values of options before anything is made with them.

    An option takes what the config has in its place: a mapping, a list, a switch, a text or a number; and numbers are
    within the limits that their names tell.

    Args:
        options: the options of the command line, as :func:`monai_sliceinterp.options.options_of` reads them.
        config: the content of the config files. Values that are null or expressions are left to what uses them.

    Raises:
        ValueError: with one line that names the option, if a value is of another kind, or does not fit.

    Example:
        >>> check_values({"max_epochs": "3", "learning_rate": "nan"}, {})
        Traceback (most recent call last):
        ...
        ValueError: learning_rate must be a positive number, got 'nan'.
        >>> check_values({"phantoms": "3"}, {"phantoms": {"count": 3}})
        Traceback (most recent call last):
        ...
        ValueError: phantoms must be a mapping such as {'count': 3}, got 3.
    """
    for name, value in {**config, **options}.items():
        if name in options and isinstance(value, str):
            with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):  # a text
                value = ast.literal_eval(value)
        if value is None or str(value).startswith(("$", "@", "%")):
            continue
        check = next((check for ends, check in _CHECKS.items() if re.fullmatch(rf"(\w+_)?({ends})", name)), None)
        if name == "batch_size" and "train" not in config:
            check = None  # of inference, where 0 chooses it
        if check is not None:
            check(name, value)
        default = _default(name, config)
        numbers = value if _is_list(value) else [value]
        if (check not in (None, _path) or isinstance(default, Real)) and any(map(_is_huge, numbers)):
            raise ValueError(f"{name} must be below {_LARGEST} in size, got {value!r}.")
        if name in options and check is not _amp:  # takes texts and switches, whatever its default
            _check_kind(name, value, default)


def _default(name: str, config: Mapping[str, Any]) -> Any:
    """Return what the config has in the place of an option; None where that is computed."""
    value = config.get(name)
    for _ in range(len(config)):
        if not isinstance(value, str) or not value.startswith("@"):
            break
        value = config.get(value[1:])
    if isinstance(value, str) and value.startswith("$"):
        try:
            return ast.literal_eval(value[1:])
        except (ValueError, SyntaxError):
            return None
    return value


def _check_kind(name: str, value: Any, default: Any) -> None:
    """Check that a value is of the kind of another one."""
    if isinstance(default, bool):
        switch(name, value)
    elif isinstance(default, Mapping):
        _require(isinstance(value, Mapping), name, "a mapping", value, default)
    elif _is_list(default):
        of_texts = not default or isinstance(default[0], str)  # one text stands for a list of one
        _require(_is_list(value) or (of_texts and isinstance(value, str | int)), name, "a list", value, default)
    elif isinstance(default, str):
        _require(not isinstance(value, Mapping) and not (_is_list(value) and not value), name, "a text", value, default)


def _require(fits: bool, name: str, kind: str, value: Any, default: Any) -> None:
    if not fits:
        raise ValueError(f"{name} must be {kind}{f' such as {default!r}' if default else ''}, got {value!r}.")


def _is_huge(value: Any) -> bool:
    return isinstance(value, Real) and bool(abs(cast(Any, value)) >= _LARGEST)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)
