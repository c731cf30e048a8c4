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

"""The command line: errors in one line, options of a bundle's configs, folders that can be written to."""

from __future__ import annotations

import dis
import errno
import logging
import re
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.utils import MONAIEnvVars

from monai_sliceinterp.checks import check_device
from monai_sliceinterp.files import printable, typed_path
from monai_sliceinterp.interruption import close_bars, end_on_signals
from monai_sliceinterp.option_values import check_values
from monai_sliceinterp.options import check_options, check_paths, options_of, options_text
from monai_sliceinterp.temporary import sweep

__all__ = [
    "INPUT_ERRORS",
    "check_writable",
    "is_bug",
    "one_line",
    "prepare_run",
    "report",
]

INPUT_ERRORS = (ValueError, TypeError, OSError, RuntimeError, MemoryError)
"""Errors that a scan, a checkpoint or a folder may raise."""

_ENVIRONMENT_ERRORS = (OSError, MemoryError, ImportError, torch.OutOfMemoryError)
"""Errors of the machine, which no ``raise`` statement has to announce."""


def one_line(error: BaseException) -> str:
    r"""Return the root cause of an error in one line.

    Example:
        >>> one_line(ValueError("first line.\nsecond line"))
        'first line.'
    """
    cause = _root_cause(error)
    if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
        return f"{cause.filename or 'a file of the run'}: no space is left on the disk to write it; expected more room."
    lines = str(cause).strip().splitlines()
    if lines and re.match(r"Caught \w+ in DataLoader worker process", lines[0]):  # with the traceback as text
        said = [match[1] for line in lines if (match := re.match(r"(?:[\w.]*\.)?\w+(?:Error|Exception): (.+)", line))]
        lines = [line for line in said if not line.startswith("applying transform ")][-1:] or lines
    return lines[0] if lines else type(cause).__name__


def _root_cause(error: BaseException) -> BaseException:
    """Return the error in a chain of errors whose message says most."""
    while (cause := error.__cause__) is not None:
        # MONAI adds a line for each transform around the one that failed
        if not str(error).startswith("applying transform "):
            if str(error).startswith(str(cause)[:20] or " "):
                break  # says what raised it, and more
            foreign = not isinstance(cause, ValueError) or isinstance(cause, UnicodeError)
            if isinstance(error, ValueError | ImportError) and (foreign or _is_ours(error) or str(cause) in str(error)):
                break  # our own message, which says more than what raised it
        error = cause
    return error


def _last(error: BaseException) -> TracebackType | None:
    """Return the place where an error was raised."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last


def _is_ours(error: BaseException) -> bool:
    """Whether this package raised an error."""
    last = _last(error)
    return last is not None and str(last.tb_frame.f_globals.get("__name__")).partition(".")[0] == __package__


def is_bug(error: BaseException) -> bool:
    """Whether an error comes from a mistake in a program instead of from its input.

    Errors about an input are announced by a ``raise`` statement, or are errors of the machine: a file that cannot be
    read, a package that is missing, memory that does not suffice. Everything else has been raised by an operation that
    nobody expected to fail.

    Example:
        >>> def fail(wrong_input):
        ...     if wrong_input:
        ...         raise ValueError("expected something else.")
        ...     return None + 1
        >>> for wrong_input in (True, False):
        ...     try:
        ...         fail(wrong_input)
        ...     except (ValueError, TypeError) as error:
        ...         print(is_bug(error))
        False
        True
    """
    cause = _root_cause(error)
    if isinstance(cause, _ENVIRONMENT_ERRORS) or re.search("out of memory|DefaultCPUAllocator", str(cause)):
        return False
    if not isinstance(cause, INPUT_ERRORS):
        return True
    last = _last(cause)
    return last is not None and dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] != "RAISE_VARARGS"


def report(error: BaseException, line: str = "") -> None:
    """Print an error to the standard error stream: in one line, below its traceback if that is needed to find a bug.

    ``MONAI_DEBUG=true`` in the environment shows the traceback of every error.

    Args:
        error: the error.
        line: the line; by default "error: " and the root cause.
    """
    shown = "".join(traceback.format_exception(error)) if MONAIEnvVars.debug() or is_bug(error) else ""
    # in one piece: the lines of several processes must not run into each other
    sys.stderr.write(printable(f"{shown}{line or f'error: {one_line(error)}'}\n"))
    sys.stderr.flush()


def check_writable(folder: str | Path) -> str:
    """Make a folder, check that files can be written into it, and remove what killed runs have left there.

    Raises:
        ValueError: if not.

    Example:
        >>> check_writable(tempfile.gettempdir()) == tempfile.gettempdir()
        True
    """
    folder = typed_path(folder)
    if not folder.strip():
        raise ValueError("no output_dir is given; expected a folder, such as out.")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        sweep(folder)
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written to ({error.strerror or error}); expected a folder.") from error
    return folder


def prepare_run(options: Mapping[str, str], bundle_root: str = "", weights: str = "", device: Any = "cpu") -> None:
    """Prepare the run of a bundle: the first item of ``run`` in its configs.

    Under ``python -m monai.bundle`` it lists the options for ``--help`` and ends, refuses options that the config does
    not have, and has errors reported by :func:`report` from then on, and by nothing else; Ctrl-C and SIGTERM end the
    run as :func:`monai_sliceinterp.interruption.end_on_signals` says. A program that runs a workflow itself gets the
    errors as they are raised.

    Args:
        options: the options for users and a text on each, from the bundle's metadata.
        bundle_root: folder of the bundle, as the config has it.
        weights: weights of the bundle that the run reads, if any.
        device: what is computed on.

    Raises:
        ValueError: if an option is unknown, a path would be taken for an expression, the weights are missing because
            the bundle is in another folder, or there is no such device.

    Example:
        >>> prepare_run({"factor": "upsampling factor"})
    """
    chosen: dict[str, Any] = {}
    if getattr(sys.modules["__main__"].__spec__, "name", "") == "monai.bundle.__main__":
        sys.excepthook = _report_uncaught
        end_on_signals()
        if not MONAIEnvVars.debug():
            threading.excepthook = _report_of_thread
            for handler in logging.getLogger().handlers:
                handler.addFilter(_is_news)
        chosen = options_of(sys.argv[1:])
        if files := chosen.get("config_file"):
            config = ConfigParser.load_config_files(files)
            if not chosen.keys().isdisjoint(("help", "h")):
                print(options_text(options, config))
                sys.exit(0)
            check_options(chosen, config)
            check_values(chosen, config)
        check_paths(chosen)
    check_device(device)
    root, path = Path(typed_path(bundle_root)), Path(typed_path(weights))
    there = path.is_file() or any((root / folder / "metadata.json").is_file() for folder in ("", "configs"))
    if weights and root in path.parents and not there:
        files = chosen.get("config_file", "FOLDER/inference.json")
        folder = Path(files if isinstance(files, str) else files[0]).parent
        folder = folder.parent if folder.name == "configs" else folder
        raise ValueError(f"{root}: is not the folder of the bundle; expected it as --bundle_root {folder}.")


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record is no error that ignite or one of its handlers logs before it is raised and reported."""
    raised = record.exc_info is not None or record.name.startswith("ignite.")
    return record.levelno < logging.ERROR or not raised


def _report_of_thread(failure: threading.ExceptHookArgs) -> None:
    """Report an error of a thread, but for those that it hands on, as TensorBoard's writer does on a full disk."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


def _report_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report an uncaught error; a bug as Python does."""
    close_bars()
    if isinstance(error, (*INPUT_ERRORS, ImportError)) and not is_bug(error):
        report(error)
    else:
        sys.__excepthook__(kind, error, trace)
