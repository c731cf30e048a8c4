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


"""Checks of arguments: each returns the value, or raises one line that names the argument, its value and what fits."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

__all__ = [
    "check_device",
    "chosen_device",
    "closest",
    "finite",
    "fraction",
    "not_negative",
    "one_of",
    "positive",
    "positive_integer",
    "positive_integers",
    "some_of",
    "switch",
    "two_numbers",
]

Word = TypeVar("Word", bound=str)


def positive_integer(name: str, value: Any, least: int = 1, why: str = "") -> int:
    """Check an integer that must not be below a limit; a float without a fraction counts as one.

    Args:
        name: what the argument is called.
        value: its value.
        least: smallest value that is allowed.
        why: what else the message says of values that fit, for instance ", or 0 to choose it".

    Raises:
        ValueError: if the value is not such an integer.

    Example:
        >>> positive_integer("factor", 4)
        4
        >>> positive_integer("factor", 0)
        Traceback (most recent call last):
        ...
        ValueError: factor must be a positive integer, got 0.
    """
    whole = isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer())
    if isinstance(value, bool) or not whole or value < least:
        wanted = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise ValueError(f"{name} must be {wanted}{why}, got {value!r}.")
    return int(value)


def positive_integers(name: str, value: Any, count: int | None = None, least: int = 1) -> tuple[int, ...]:
    """Check one or several integers that must not be below a limit.

    Args:
        name: what the argument is called.
        value: an integer, or a sequence of them.
        count: how many there must be; None: one or more.
        least: smallest value that is allowed.

    Raises:
        ValueError: if the value is not made of such integers, or of another number of them.

    Example:
        >>> positive_integers("gap", 2), positive_integers("patch_size", [64, 48], count=2)
        ((2,), (64, 48))
        >>> positive_integers("patch_size", (64, 0), count=2)
        Traceback (most recent call last):
        ...
        ValueError: patch_size must be 2 positive integers, got (64, 0).
    """
    try:
        values = tuple(positive_integer(name, item, least) for item in (value if _is_sequence(value) else (value,)))
    except ValueError:
        values = ()
    if not values or len(values) != (count or len(values)):
        wanted = "positive integers" if least == 1 else f"integers of at least {least}"
        raise ValueError(f"{name} must be {count or 'one or more'} {wanted}, got {value!r}.")
    return values


def positive(name: str, value: Any, unit: str = "") -> float:
    """Check a number that must be positive and finite.

    Args:
        name: what the argument is called.
        value: its value.
        unit: its unit, for the message.

    Raises:
        ValueError: if the value is not such a number.

    Example:
        >>> positive("spacing", 0.7, "mm")
        0.7
        >>> positive("spacing", -1, "mm")
        Traceback (most recent call last):
        ...
        ValueError: spacing must be a positive number of mm, got -1.
    """
    if not _is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number{f' of {unit}' if unit else ''}, got {value!r}.")
    return float(value)


def not_negative(name: str, value: Any, unit: str = "") -> float:
    """Check a number that must be zero or positive, and finite.

    Raises:
        ValueError: if the value is not such a number.

    Example:
        >>> not_negative("fwhm", 0)
        0.0
    """
    if not _is_number(value) or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be zero or a positive number{f' of {unit}' if unit else ''}, got {value!r}.")
    return float(value)


def fraction(name: str, value: Any) -> float:
    """Check a number that must lie within 0 and 1, such as a probability.

    Raises:
        ValueError: if the value is not such a number.

    Example:
        >>> fraction("prob", 0.5)
        0.5
    """
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}.")
    return float(value)


def finite(name: str, value: Any) -> float:
    """Check a finite number.

    Raises:
        ValueError: if the value is not such a number.

    Example:
        >>> finite("body_threshold", -500)
        -500.0
    """
    if not _is_number(value) or not -math.inf < value < math.inf:
        raise ValueError(f"{name} must be a finite number, got {value!r}.")
    return float(value)


def two_numbers(
    name: str, value: Any, least: float = -math.inf, most: float = math.inf, ascending: bool = False
) -> tuple[float, float]:
    """Check a pair of finite numbers.

    Args:
        name: what the argument is called.
        value: its value.
        least: smallest number that is allowed.
        most: largest one.
        ascending: whether the second has to be larger than the first.

    Raises:
        ValueError: if the value is not such a pair.

    Example:
        >>> two_numbers("percentiles", [1, 99], 0, 100, ascending=True)
        (1.0, 99.0)
    """
    pair = list(value) if _is_sequence(value) else []
    fits = len(pair) == 2 and all(_is_number(item) and least <= item <= most and abs(item) < math.inf for item in pair)
    if not fits or (ascending and pair[0] >= pair[1]):
        limits = (
            "" if least == -math.inf else f" of at least {least}" if most == math.inf else f" from {least} to {most}"
        )
        order = ", the smaller first" if ascending else ""
        raise ValueError(f"{name} must be two numbers{limits}{order}, got {value!r}.")
    return float(pair[0]), float(pair[1])


def switch(name: str, value: Any) -> bool:
    """Read a switch: ``--keep_observed false`` on the command line reaches a component as the text "false".

    Raises:
        ValueError: if the value is neither true nor false.

    Example:
        >>> switch("amp", "false"), switch("amp", True)
        (False, True)
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError(f"{name} must be true or false, got {value!r}.")


def one_of(name: str, value: Any, known: Iterable[Word]) -> Word:
    """Check a word that must be one of those that are known.

    Raises:
        ValueError: if it is not; the message lists what is known, and which of it is meant if that can be guessed.

    Example:
        >>> one_of("mode", "linear", ["linear", "cubic"])
        'linear'
        >>> one_of("mode", "cubik", ["linear", "cubic"])
        Traceback (most recent call last):
        ...
        ValueError: unknown mode 'cubik'; expected one of linear, cubic; did you mean 'cubic'?
    """
    words = list(known)
    if value not in words:
        raise ValueError(f"unknown {name} {value!r}; expected one of {', '.join(words)}{closest(value, words) or '.'}")
    return value


def some_of(name: str, value: Any, known: Iterable[str]) -> list[str]:
    """Read one or several of some known words, in the order in which they are known.

    Raises:
        ValueError: if there is none, or an unknown one.

    Example:
        >>> some_of("stages", "rfn", ["ami", "rfn"]), some_of("stages", ["rfn", "ami"], ["ami", "rfn"])
        (['rfn'], ['ami', 'rfn'])
    """
    words = list(known)
    chosen = list(value) if _is_sequence(value) else [value]
    if not chosen or any(word not in words for word in chosen):
        raise ValueError(f"{name} must be one or more of {', '.join(words)}, got {value!r}.")
    return [word for word in words if word in chosen]


def closest(word: Any, known: Iterable[str]) -> str:
    """Guess which known word is meant: the end of a message, or nothing.

    Example:
        >>> closest("cubik", ["linear", "cubic"])
        "; did you mean 'cubic'?"
        >>> closest("x", ["linear", "cubic"])
        ''
    """
    near = difflib.get_close_matches(str(word), list(known))
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def chosen_device(device: Any = None) -> torch.device:
    """Return the device to compute on, once it is checked: a GPU if there is one, where none is named.

    Raises:
        ValueError: see :func:`check_device`.

    Example:
        >>> chosen_device("cpu")
        device(type='cpu')
    """
    import torch  # takes a second, which other checks do not pay

    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(name)
    return torch.device(name)


def check_device(device: Any) -> None:
    """Check that there is a device to compute on.

    Raises:
        ValueError: if torch does not know it, or it is not in this machine.

    Example:
        >>> check_device("cpu")
        >>> check_device("nonsense:1")
        Traceback (most recent call last):
        ...
        ValueError: device nonsense:1: cannot be computed on...
    """
    import torch  # takes a second, which other checks do not pay

    try:
        torch.zeros(1, device=device).cpu()
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        cause = str(error).strip().splitlines()[0].rstrip(".")
        known = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise ValueError(
            f"device {device}: cannot be computed on ({cause}); expected one of {', '.join(known)}."
        ) from error
