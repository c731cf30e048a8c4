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

"""``sliceinterp interpolate``: its options, and what can be checked before anything heavy is imported."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from monai_sliceinterp import __version__
from monai_sliceinterp.arguments import OneLineParser
from monai_sliceinterp.bundles import CLASSICAL, find_bundles
from monai_sliceinterp.checks import closest, positive
from monai_sliceinterp.files import IMAGE_SUFFIXES, printable

__all__ = ["main", "make_parser"]

_FORMATS = ("nifti", "same", "dicom")


def make_parser(prog: str = "sliceinterp") -> argparse.ArgumentParser:
    """Make the parser of the options.

    Example:
        >>> options = make_parser().parse_args("scan.nii.gz -o out --spacing 1.0 --max_gap_mm 12".split())
        >>> options.inputs, options.output, options.spacing, options.max_gap_mm, options.method
        (['scan.nii.gz'], 'out', 1.0, 12.0, 'auto')
    """
    from monai_sliceinterp.cli.main import COMMANDS

    known = ", ".join([*CLASSICAL, *find_bundles()])
    parser = OneLineParser(
        prog=prog,
        usage=f"{prog} [INPUT ...] [options]" + ("" if " " in prog else f"\n       {prog} COMMAND --help"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Interpolate the slices of CT and MR scans: scans with coarse slices in, with thin slices out.",
        epilog="\n".join(
            [
                *([] if " " in prog else ["commands:"]),
                *([] if " " in prog else [f"  {name:22}{command.help}" for name, command in COMMANDS.items()]),
                *([] if " " in prog else [""]),
                "A path that begins with - goes behind --, or is written as --input=PATH. Research only: synthesized",
                "slices are estimates and must not be used for diagnosis.",
            ]
        ),
    )
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="a scan, or a folder, a zip file or a list of scans")
    add = parser.add_argument
    add("-i", "--input", action="append", default=[], metavar="PATH", help="the same as INPUT")
    add("-o", "--output", "--output-dir", default=".", metavar="DIR", help="folder for the results (default: this one)")
    add("-m", "--method", default="auto", metavar="NAME", help=f"auto (default), {known}; or BUNDLE,OVERLAY,ckpt=FILE")
    finer = parser.add_mutually_exclusive_group()
    finer.add_argument("-f", "--factor", type=int, metavar="K", help="gaps for each gap; or")
    finer.add_argument(
        "-s", "--spacing", type=float, metavar="MM", help="slice spacing; default: as fine as the pixels"
    )
    add("--axis", type=int, choices=(0, 1, 2), help="slice axis; default: what the scan says, or the largest spacing")
    add(
        "--label", metavar="PATH", help="a segmentation to bring onto the same grid, or a folder with one for each scan"
    )
    add(
        "--format",
        "--output-format",
        default="nifti",
        metavar="F",
        help="nifti (default), same, dicom, or several: a,b",
    )
    add("--series", metavar="N", help="number or UID of a DICOM series, or all: each into a folder of its own")
    add("--adapt", action="store_true", help="fine-tune the network on the scan first, kept if it helps (minutes)")
    add("--adapt-steps", type=int, metavar="N", help="steps of that (default: 100)")
    add("--quality", action="store_true", help="write how well the method does on this very scan")
    add("--provenance", action="store_true", help="write which slices are synthesized, and how")
    add("--preview", action="store_true", help="write a picture of before and after, and a page to look at both")
    add("--overwrite", action="store_true", help="replace results that exist")
    add("--resume", action="store_true", help="leave out scans whose results exist")
    add("--device", metavar="D", help="cpu, cuda:1, ...; default: a GPU if there is one")
    add("--modality", metavar="M", help="CT or MR, where the file does not say and the values mislead")
    add("--spacing-in", type=_lengths, metavar="MM", help="voxel size of files that lack it: one number or X,Y,Z")
    add("--slice-thickness", type=_length, metavar="MM", help="thickness of the slices; default: what DICOM says")
    add("--amp", choices=("auto", "true", "false"), help="compute in bfloat16; default: where the processor has it")
    add("--max-gap-mm", type=float, metavar="MM", help="largest gap between DICOM slices; default: three usual ones")
    add("--progress-lines", action="store_true", help="print progress as lines, for programs: progress: slices 12/160")
    add("--version", action="version", version=f"sliceinterp {__version__}")
    return parser


def _length(text: str) -> float:
    try:
        return positive("slice_thickness", float(text), "mm")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a positive number of mm") from None


def _lengths(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def main(argv: Sequence[str], prog: str = "sliceinterp") -> int:
    """Run the command.

    Args:
        argv: its arguments.
        prog: name of the command in messages.

    Returns:
        The exit status: 0, or 1 if a scan failed, 2 if an option is wrong.

    Example:
        >>> main(["nowhere.nii.gz"])
        1
    """
    parser = make_parser(prog)
    if not argv:
        parser.print_help()
        return 0
    end = list(argv).index("--") if "--" in argv else len(argv)
    options = parser.parse_intermixed_args(argv[:end])
    options.inputs = [*options.inputs, *options.input, *argv[end + 1 :]]
    if not options.inputs:
        parser.error("no input is given; expected a scan, or a folder of scans")
    if options.adapt_steps is not None:
        options.adapt = True
        if options.adapt_steps < 1:
            parser.error(f"--adapt-steps {options.adapt_steps}: expected a positive number of steps")
    if options.output.lower().endswith(IMAGE_SUFFIXES):
        parser.error(f"--output {options.output}: is a file; expected a folder: results are called SCAN_interp.nii.gz")
    for name in (formats := options.format.split(",")):
        if name not in _FORMATS:
            parser.error(f"--format {name}: expected one of {', '.join(_FORMATS)}{closest(name, _FORMATS)}")
    options.format = formats
    for path in options.inputs:
        if not Path(path).exists():
            print(printable(f"error: {path}: no such file or folder{_meant(path)}"), file=sys.stderr)
            return 1
    from monai_sliceinterp.cli.running import run_scans

    return run_scans(options)


def _meant(path: str) -> str:
    """Guess what a path that is not there was to be: a command, or a file beside it."""
    from monai_sliceinterp.cli.main import COMMANDS

    if path in ("true", "false"):
        return "; options such as --overwrite take no value."
    folder = Path(path).parent
    names = os.listdir(folder) if folder.is_dir() else []
    return closest(Path(path).name, [*(COMMANDS if Path(path).name == path else ()), *names]) or "."
