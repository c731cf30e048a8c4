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

from monai_sliceinterp.command_line import INPUT_ERRORS, OneLineParser, one_line
from monai_sliceinterp.evaluation.harness import NothingScoredError, run_evaluation
from monai_sliceinterp.evaluation.protocols import PROTOCOLS
from monai_sliceinterp.evaluation.settings import PERCEPTUAL, EvaluationSettings
from monai_sliceinterp.metrics.body import BODY_THRESHOLD

__all__ = ["main", "make_parser"]


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command's options.

    Example:
        >>> options = make_parser().parse_args("--data scans --methods linear asi --factor 2 4".split())
        >>> options.methods, options.factors, options.protocols
        (['linear', 'asi'], [2, 4], ['subsample'])
    """
    parser = OneLineParser(
        prog="python -m monai_sliceinterp.evaluation",
        description="Make thin-slice volumes thick, interpolate them back by several methods, score and test the "
        "results, and write a report. A run that is cut off goes on where it was when the command is given again; "
        "methods, factors and volumes that are added are all that is computed then.",
        epilog="A bundle's config is a program: evaluate only bundles you trust. "
        "Exit status: 0, 1 if a volume failed, 2 if a setting is wrong.",
    )
    add = parser.add_argument
    add("--data", nargs="+", required=True, metavar="PATH", help="volumes, folders of volumes, or DICOM folders")
    add(
        "--methods",
        nargs="+",
        required=True,
        metavar="METHOD",
        help="linear, cubic, lanczos; the name of a bundle in ./bundles; the folder or the zip file of one. "
        "NAME=METHOD names it; METHOD,OVERLAY lays a config of the bundle over its inference.json, "
        "METHOD,config=FILE any config; METHOD,ckpt=FILE takes other weights: small=saint,small or "
        "mine=bundles/asi,ckpt=runs/model.pt",
    )
    add(
        "--factor",
        "--factors",
        dest="factors",
        nargs="+",
        type=int,
        default=[2, 4],
        metavar="K",
        help="upsampling factors (default: 2 4)",
    )
    add(
        "--protocol",
        "--protocols",
        dest="protocols",
        nargs="+",
        default=["subsample"],
        metavar="NAME",
        help=f"how slices are left out: {', '.join(PROTOCOLS)} (default: subsample). subsample: every K-th slice is "
        "kept; fwhm: slabs as wide as the new spacing; random: slab, noise and first slice drawn for each volume, and "
        "all slices scored; leave_one_out: every second slice of any scan is synthesized, in both phases",
    )
    add("--output_dir", default="evaluation", metavar="DIR", help="folder for all results (default: evaluation)")
    add("--subjects", nargs="+", default=[], metavar="START", help="evaluate files whose names start like this")
    add("--axis", type=int, metavar="A", help="slice axis 0, 1 or 2 (default: the one with the largest spacing)")
    add(
        "--window",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="intensities that are scored, in the scans' units; their width is the data range (default: -1024 2976 "
        "where a volume has values below -200, which is taken for CT; else its 1st and 99th percentile)",
    )
    add("--crop", type=int, default=0, metavar="N", help="evaluate the central N x N pixels (default: 0, all)")
    add(
        "--body",
        nargs="?",
        type=float,
        const=BODY_THRESHOLD,
        metavar="HU",
        help=f"also score inside the body: above HU (default with --body: {BODY_THRESHOLD:g}), holes filled",
    )
    add("--quick", action="store_true", help="no VIF, no scores of all slices and of cuts across them")
    add("--perceptual", nargs="+", default=[], metavar="NAME", help=f"optional scores: {', '.join(PERCEPTUAL)}")
    add(
        "--baselines",
        nargs="+",
        default=["linear", "cubic"],
        metavar="METHOD",
        help="methods that the others are tested against, where they are evaluated (default: linear cubic)",
    )
    add("--workers", type=int, default=1, metavar="N", help="processes; each loads all networks (default: 1)")
    add("--panels", type=int, default=2, metavar="N", help="volumes that panels are drawn of (default: 2)")
    add("--sweep", type=int, default=8, metavar="K", help="steps shown between two slices, 0 for none (default: 8)")
    add(
        "--curve",
        default="",
        metavar="NAME",
        help="draw scores over a parameter of this name; methods on the curve are called SERIES@NUMBER: "
        "--curve lambda --methods asi@0.1=asi,ckpt=a.pt asi@1=asi,ckpt=b.pt",
    )
    add("--device", default="", help="for instance cpu or cuda:1 (default: the GPU if there is one)")
    add("--seed", type=int, default=0, help="of the bootstrap and the random protocol (default: 0)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the options; those of the command line where None.

    Returns:
        The exit status: 0, or 1 if something failed, 2 if a setting is wrong.

    Example:
        >>> main(["--data", "nowhere", "--methods", "linear"])
        2
    """
    options = vars(make_parser().parse_args(argv))
    options["window"] = tuple(options["window"]) if options["window"] else None
    try:
        evaluation = run_evaluation(EvaluationSettings(**options))
    except (*INPUT_ERRORS, ImportError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
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
