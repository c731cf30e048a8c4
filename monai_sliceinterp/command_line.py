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


"""The command line: options as values, errors in one line."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

__all__ = ["INPUT_ERRORS", "OneLineParser", "as_bool", "as_choices", "check_writable", "exit_on_error", "one_line"]

T = TypeVar("T")

INPUT_ERRORS = (ValueError, TypeError, OSError, RuntimeError, MemoryError)
"""What a scan, a checkpoint or a folder that is not as it should be may raise."""


class OneLineParser(argparse.ArgumentParser):
    """A parser of arguments that tells an error in one line, with exit status 2.

    Example:
        >>> parser = OneLineParser()
        >>> _ = parser.add_argument("--factor", type=int)
        >>> parser.parse_args(["--factor", "4"]).factor
        4
    """

    def error(self, message: str) -> NoReturn:
        """End the program."""
        self.exit(2, f"error: {message} (--help tells the options)\n")


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
