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

"""Commands of the package: ``python -m monai_sliceinterp --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from monai_sliceinterp.command_line import INPUT_ERRORS, OneLineParser, one_line
from monai_sliceinterp.zoo import MODEL_INFO, pack_bundles

__all__ = ["main", "make_parser"]


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the commands and their options.

    Example:
        >>> options = make_parser().parse_args("pack bundles/asi bundles/vts --output_dir zips".split())
        >>> options.bundles, options.output_dir
        (['bundles/asi', 'bundles/vts'], 'zips')
    """
    parser = OneLineParser(
        prog="python -m monai_sliceinterp",
        description="Slice interpolation of anisotropic medical volumes for MONAI.",
        epilog="Elsewhere: python -m monai.bundle run --config_file bundles/asi/inference.json interpolates scans (a "
        "bundle's docs/README.md has all its commands); python -m monai_sliceinterp.evaluation compares methods.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    pack = commands.add_parser(
        "pack",
        help="write zip files of bundles, as model zoos host them",
        description="Check bundles, write <name>_v<version>.zip of each with real files in place of links, and list "
        f"them with their checksums in {MODEL_INFO}. The same content gives the same bytes. Checking builds the "
        "networks of the configs, and a bundle's config is a program: pack only bundles you trust.",
    )
    pack.add_argument("bundles", nargs="+", metavar="BUNDLE", help="folder of a bundle, such as bundles/asi")
    pack.add_argument("--output_dir", default="dist", metavar="DIR", help="folder for the zip files (default: dist)")
    pack.add_argument(
        "--source",
        default="",
        metavar="URL",
        help=f"address of the folder the zip files will be downloaded from, for {MODEL_INFO}: "
        "https://github.com/OWNER/REPO/releases/download/hosting_storage_v1 (default: none)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; without one, list the commands.

    Args:
        argv: the options; those of the command line where None.

    Returns:
        The exit status: 0, or 1 if the command failed, 2 if an option is wrong.

    Example:
        >>> main(["pack", "nowhere"])
        1
    """
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        packed = pack_bundles(options.bundles, options.output_dir, options.source)
    except INPUT_ERRORS as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    for item in packed:
        print(f"{item.path} ({item.path.stat().st_size / 1e6:.1f} MB, SHA-1 {item.checksum})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
