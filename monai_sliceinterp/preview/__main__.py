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

"""Look at a result: ``python -m monai_sliceinterp.preview scan.nii.gz out/scan_interp.nii.gz``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from monai_sliceinterp.arguments import OneLineParser
from monai_sliceinterp.command_line import INPUT_ERRORS, report
from monai_sliceinterp.preview.files import write_preview_files

__all__ = ["main", "make_parser"]


def make_parser(prog: str = "python -m monai_sliceinterp.preview") -> OneLineParser:
    """Make the parser of the command's options.

    Example:
        >>> make_parser().parse_args(["scan.nii.gz", "out/scan_interp.nii.gz"]).output
        'out/scan_interp.nii.gz'
    """
    parser = OneLineParser(
        prog=prog,
        description="Write a picture of a scan before and after interpolation, STEM_preview.png, and a page to look at "
        "both in a browser, STEM_viewer.html, which needs no network. The page holds the scan's voxels.",
    )
    parser.add_argument("input", help="the scan: image file or DICOM folder")
    parser.add_argument("output", help="the volume that was interpolated from it")
    parser.add_argument("--output_dir", metavar="DIR", help="folder to write to (default: that of the output)")
    parser.add_argument("--method", default="", help="name of the method (default: as the provenance tells)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "python -m monai_sliceinterp.preview") -> int:
    """Run the command.

    Args:
        argv: the options; those of the command line where None.
        prog: name of the command in messages.

    Returns:
        The exit status: 0, or 1 if something failed, 2 if an option is wrong.

    Example:
        >>> main(["missing.nii.gz", "thin.nii.gz"])
        1
    """
    options = make_parser(prog).parse_args(argv)
    folder = Path(options.output).parent if options.output_dir is None else Path(options.output_dir)
    try:
        files = write_preview_files(
            options.input, options.output, folder, method=options.method, overwrite=options.overwrite
        )
    except (*INPUT_ERRORS, ImportError) as error:
        report(error)
        return 1
    print(*files, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
