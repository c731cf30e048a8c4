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

"""Evaluate methods from the command line: ``python -m monai_sliceinterp.evaluation --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

from monai_sliceinterp.arguments import OneLineParser
from monai_sliceinterp.command_line import INPUT_ERRORS, report
from monai_sliceinterp.evaluation.harness import NothingScoredError, run_evaluation
from monai_sliceinterp.evaluation.settings import EvaluationSettings

__all__ = ["main", "make_parser"]


def make_parser(prog: str = "python -m monai_sliceinterp.evaluation") -> argparse.ArgumentParser:
    """Make the parser of the command's options.

    Example:
        >>> options = make_parser().parse_args("--data scans --methods linear asi --factor 2 4".split())
        >>> options.methods, options.factors, options.protocols
        (['linear', 'asi'], [2, 4], ('subsample',))
    """
    parser = OneLineParser(
        prog=prog,
        description="Make thin-slice volumes thick, interpolate them back by several methods, score and test the "
        "results, and write a report. A run that is cut off goes on where it was when the command is given again; "
        "methods, factors and volumes that are added are all that is computed then.",
        epilog="A bundle's config is a program: evaluate only bundles you trust. "
        "Exit status: 0, 1 if a volume failed, 2 if a setting is wrong.",
    )
    for entry in fields(EvaluationSettings):
        names, text, kind = entry.metadata["names"], entry.metadata["text"], str(entry.type)
        options: dict[str, Any] = {"type": float if "float" in kind else int if "int" in kind else str}
        if kind == "bool":
            options = {"action": "store_true"}
        elif not kind.startswith(("int", "float", "str")):
            options["nargs"] = 2 if kind.startswith("tuple") else "+"
        if entry.default not in (None, "", (), False, MISSING):
            values = entry.default if isinstance(entry.default, tuple) else [entry.default]
            text += f" (default: {' '.join(map(str, values))})"
        if kind != "bool":
            options.update(entry.metadata["parser"])
        if entry.default is MISSING:
            options["required"] = True
        else:
            options["default"] = entry.default
        parser.add_argument(*(names or [f"--{entry.name}"]), dest=entry.name, help=text, **options)
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "python -m monai_sliceinterp.evaluation") -> int:
    """Run the command.

    Args:
        argv: the options; those of the command line where None.
        prog: name of the command in messages.

    Returns:
        The exit status: 0, or 1 if something failed, 2 if a setting is wrong.

    Example:
        >>> main(["--data", "nowhere", "--methods", "linear"])
        2
    """
    options = vars(make_parser(prog).parse_args(argv))
    options["window"] = tuple(options["window"]) if options["window"] else None
    try:
        evaluation = run_evaluation(EvaluationSettings(**options))
    except (*INPUT_ERRORS, ImportError) as error:
        report(error)
        return 1 if isinstance(error, NothingScoredError) else 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was.", file=sys.stderr)
        return 130
    print(evaluation.report)
    if evaluation.failures:
        print(f"error: {len(evaluation.failures)} failures, see above and in the report", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
