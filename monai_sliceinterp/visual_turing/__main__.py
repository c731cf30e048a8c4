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

"""Visual Turing test: ``sliceinterp turing make`` and ``sliceinterp turing score``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from monai_sliceinterp.arguments import OneLineParser
from monai_sliceinterp.command_line import INPUT_ERRORS, check_writable, report
from monai_sliceinterp.evaluation.statistics import write_table
from monai_sliceinterp.files import check_free
from monai_sliceinterp.visual_turing.page import study_files, write_study
from monai_sliceinterp.visual_turing.scores import read_answers, read_key, score_answers
from monai_sliceinterp.visual_turing.study import ASKED, PROTOCOLS, StudySettings, make_study

__all__ = ["main", "make_parser"]


def make_parser(prog: str = "sliceinterp turing") -> OneLineParser:
    """Make the parser of the command's options.

    Example:
        >>> options = make_parser().parse_args("make scans --methods linear saint --questions 50 -o study".split())
        >>> options.methods, options.questions, options.protocol
        (['linear', 'saint'], 50, 'subsample')
    """
    parser = OneLineParser(
        prog=prog,
        description="Visual Turing test: readers compare blinded stacks of true and interpolated slices, side by side.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="make | score")
    make = actions.add_parser(
        "make",
        help="write the page and the key",
        description="Leave slices of thin scans out, interpolate them by each method, and write turing.html, a page "
        "for readers that works without a network, and turing_key.json, which tells what is what: keep it from "
        "readers. The page holds voxels of the scans.",
    )
    add = make.add_argument
    add("data", nargs="+", metavar="SCAN", help="thin scans, folders of them, or DICOM folders")
    add("--methods", "-m", nargs="+", required=True, metavar="METHOD", help="as sliceinterp evaluate takes them")
    add("--output-dir", "-o", default="turing", metavar="DIR", help="folder for the files (default: turing)")
    add("--questions", type=int, default=20, metavar="N", help="number of questions (default: 20)")
    add("--slices", type=int, default=9, metavar="N", help="slices of a stack, 1 for single images (default: 9)")
    add("--factor", "-f", type=int, default=4, metavar="K", help="upsampling factor (default: 4)")
    add("--protocol", default=PROTOCOLS[0], metavar="NAME", help=f"how: {', '.join(PROTOCOLS)} (default: the first)")
    asked = "; ".join(f"{name}: {text}" for name, text in ASKED.items())
    add("--ask", default="preference", metavar="WHAT", help=f"{asked} (default: preference)")
    add("--no-truth", action="store_true", help="show methods only")
    add("--axis", type=int, choices=(0, 1, 2), help="slice axis; default: what the scan says, or the largest spacing")
    add("--window", type=float, nargs=2, metavar=("LOW", "HIGH"), help="intensities shown (default: as fits the scan)")
    add("--crop", type=int, default=0, metavar="N", help="show the central N x N pixels (default: all)")
    add("--device", default="", metavar="D", help="cpu, cuda:1, ...; default: a GPU if there is one")
    add("--seed", type=int, metavar="N", help="makes the same study again; default: drawn, and told by the key")
    add("--overwrite", action="store_true", help="replace files that exist")
    score = actions.add_parser(
        "score",
        help="score answers",
        description="Count how often readers chose each candidate, with exact binomial intervals (95 %%) and tests "
        "against chance.",
    )
    score.add_argument("key", help="turing_key.json")
    score.add_argument("answers", nargs="+", metavar="ANSWERS", help="files that readers saved from the page")
    score.add_argument("--output", "-o", metavar="CSV", help="also write the table to a file")
    score.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "sliceinterp turing") -> int:
    """Run the command.

    Args:
        argv: the options; those of the command line where None.
        prog: name of the command in messages.

    Returns:
        The exit status: 0, or 1 if something failed, 2 if an option is wrong.

    Example:
        >>> main(["score", "nowhere_key.json", "answers.json"])
        1
    """
    options = make_parser(prog).parse_args(argv)
    try:
        return _make(options) if options.action == "make" else _score(options)
    except (*INPUT_ERRORS, ImportError) as error:
        report(error)
        return 1


def _make(options: argparse.Namespace) -> int:
    settings = StudySettings(
        options.data,
        options.methods,
        options.questions,
        options.slices,
        options.factor,
        options.protocol,
        options.ask,
        not options.no_truth,
        options.axis,
        tuple(options.window) if options.window else None,
        options.crop,
        options.device,
        options.seed,
    )
    for path in study_files(options.output_dir):  # before the work
        check_free(path, options.overwrite)
    check_writable(options.output_dir)
    done = 0

    def tell(scan: str) -> None:
        nonlocal done
        done += 1
        print(f"question {done} of {options.questions}: {scan}", file=sys.stderr, flush=True)

    page, key = write_study(make_study(settings, tell), options.output_dir, overwrite=options.overwrite)
    print(f"{page} ({page.stat().st_size / 1e6:.1f} MB): for readers, who open it in a browser and send their answers")
    print(f"{key}: tells what is what; keep it from readers")
    return 0


def _score(options: argparse.Namespace) -> int:
    key = read_key(options.key)
    if options.output:
        check_free(Path(options.output), options.overwrite)
    table = score_answers(key, [read_answers(path, key) for path in options.answers])
    print(ASKED.get(key["ask"], key["ask"]))
    for reader, rows in table.groupby("reader", sort=False):
        print(f"{reader}:")
        for row in rows.itertuples():
            print(
                f"  {row.candidate:16} {row.chosen:4} of {row.answers}  {row.share:6.1%}  "
                f"(95 %: {row.low:.1%} to {row.high:.1%}; chance {row.chance:.1%}, p = {row.p_value:.2g})"
            )
    if options.output:
        write_table(table, Path(options.output))
        print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
