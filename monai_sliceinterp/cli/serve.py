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

"""``sliceinterp serve``: the options of the PACS node."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_sliceinterp.arguments import OneLineParser
from monai_sliceinterp.bundles import CLASSICAL, find_bundles, parse_method
from monai_sliceinterp.checks import closest, positive, positive_integer
from monai_sliceinterp.dicom_node.settings import NodeSettings, parse_address, parse_peer
from monai_sliceinterp.files import printable

__all__ = ["main", "make_parser", "settings_of"]

_PASSED_ON = ("method", "factor", "spacing", "axis", "device", "modality", "max_gap_mm")
"""Options that are those of ``sliceinterp interpolate``."""


def make_parser(prog: str = "sliceinterp serve") -> argparse.ArgumentParser:
    """Make the parser of the options.

    Example:
        >>> options = make_parser().parse_args("--folder q --from PACS --to PACS@localhost:104 -s 1.0".split())
        >>> options.callers, options.to, options.spacing, options.stable_age
        (['PACS'], 'PACS@localhost:104', 1.0, 30.0)
    """
    parser = OneLineParser(
        prog=prog,
        usage=f"{prog} --folder DIR --from AETITLE --to AETITLE@HOST:PORT [options]",
        description="Be a DICOM node: take series of CT and MR by C-STORE, interpolate each when it is complete, and "
        "send the derived series to another node. Ends on Ctrl-C and SIGTERM, and goes on where it was.",
        epilog="Research only: synthesized slices are estimates and must not be used for diagnosis.",
    )
    add = parser.add_argument
    add("--folder", required=True, metavar="DIR", help="queue on disk; it holds patient data")
    add("--from", required=True, action="append", dest="callers", metavar="AETITLE", help="who may send; repeatable")
    add("--to", required=True, metavar="AETITLE@HOST:PORT", help="where derived series are sent")
    add("--ae-title", default="SLICEINTERP", metavar="AETITLE", help="of this node (default: SLICEINTERP)")
    add("--host", default="127.0.0.1", metavar="HOST", help="address to listen on (default: 127.0.0.1; 0.0.0.0: all)")
    add("--port", type=int, default=11112, metavar="P", help="DICOM port (default: 11112)")
    add("--health", default="127.0.0.1:8112", metavar="HOST:PORT", help="health page (default: 127.0.0.1:8112)")
    add("--stable-age", type=float, default=30.0, metavar="S", help="complete after S seconds without news (30)")
    add("--max-series", type=int, default=100, metavar="N", help="series in work at once; others are refused (100)")
    add("--min-free", type=float, default=5.0, metavar="GIB", help="free disk below which all are refused (5)")
    add("--retry-after", type=float, default=10.0, metavar="S", help="first pause where the destination fails (10)")
    add("--timeout", type=float, default=3600.0, metavar="S", help="longest time for one series (3600)")
    add("--keep-days", type=float, default=90.0, metavar="D", help="how long to remember what was done (90)")
    add("-m", "--method", default="auto", metavar="NAME", help="as of sliceinterp: auto, cubic, saint, ...")
    finer = parser.add_mutually_exclusive_group()
    finer.add_argument("-f", "--factor", type=int, metavar="K", help="gaps for each gap; or")
    finer.add_argument("-s", "--spacing", type=float, metavar="MM", help="slice spacing; default: as the pixels")
    add("--axis", type=int, choices=(0, 1, 2), help="slice axis")
    add("--device", metavar="D", help="cpu, cuda:1, ...; default: a GPU if there is one")
    add("--modality", metavar="M", help="CT or MR, where it is not what the series says")
    add("--max-gap-mm", type=float, metavar="MM", help="largest gap between slices; default: three usual ones")
    return parser


def settings_of(options: argparse.Namespace) -> NodeSettings:
    """Check the options, and return them as settings.

    Raises:
        ValueError: with one line that names the option that is wrong.

    Example:
        >>> options = make_parser().parse_args("--folder q --from PACS --to PACS@localhost:104 -f 4".split())
        >>> settings_of(options).options
        ('--method', 'auto', '--factor', '4')
    """
    if options.factor is not None:
        positive_integer("--factor", options.factor)
    for name in ("spacing", "max_gap_mm"):
        if getattr(options, name) is not None:
            positive(f"--{name.replace('_', '-')}", getattr(options, name), "mm")
    if not 0 <= options.port <= 65535:
        raise ValueError(f"--port {options.port}: expected 1 to 65535, or 0 for any that is free.")
    _check_method(options.method)
    passed: list[str] = []
    for name in _PASSED_ON:
        value: Any = getattr(options, name)
        if value is not None:
            passed += [f"--{name.replace('_', '-')}", str(value)]
    return NodeSettings(
        folder=Path(options.folder),
        destination=parse_peer("--to", options.to),
        callers=tuple(options.callers),
        ae_title=options.ae_title,
        host=options.host,
        port=options.port,
        health=parse_address("--health", options.health),
        stable_seconds=options.stable_age,
        max_series=options.max_series,
        min_free_gib=options.min_free,
        retry_seconds=options.retry_after,
        timeout_seconds=options.timeout,
        keep_days=options.keep_days,
        options=tuple(passed),
    )


def _check_method(text: str) -> None:
    """Check that a method is here, so that not each series fails for it."""
    source = parse_method(text).source
    known = ("auto", *CLASSICAL, *find_bundles())
    if source not in known and not Path(source).exists():
        raise ValueError(
            f"--method {text}: is not here; expected one of {', '.join(known)}{closest(source, known)} "
            f"(sliceinterp bundles download {source})"
        )


def main(argv: Sequence[str], prog: str = "sliceinterp serve") -> int:
    """Run the node.

    Args:
        argv: its arguments.
        prog: name of the command in messages.

    Returns:
        The exit status: 0 when it was told to end, 1 if it cannot start, 2 if an option is wrong.

    Example:
        >>> main("--folder q --from PACS --to PACS".split())
        1
    """
    options = make_parser(prog).parse_args(argv)
    try:
        settings = settings_of(options)
        try:
            from monai_sliceinterp.dicom_node.node import serve
        except ModuleNotFoundError as error:
            if error.name != "pynetdicom":
                raise
            raise ValueError('serve needs pynetdicom; expected pip install "monai_sliceinterp[dicom-node]".') from None
        return serve(settings)
    except (ValueError, TypeError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 1
