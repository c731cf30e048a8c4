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

"""``sliceinterp pack``: zip files of bundles, and folders for Hugging Face."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from monai_sliceinterp.arguments import OneLineParser

__all__ = ["main", "make_parser"]


def make_parser(prog: str = "sliceinterp pack") -> argparse.ArgumentParser:
    """Make the parser of the options.

    Example:
        >>> options = make_parser().parse_args("bundles/asi bundles/vts --output_dir zips".split())
        >>> options.bundles, options.output_dir
        (['bundles/asi', 'bundles/vts'], 'zips')
    """
    parser = OneLineParser(
        prog=prog,
        description="Check bundles, write <name>_v<version>.zip of each with real files in place of links, and list "
        "them with their checksums in model_info.json. The same content gives the same bytes. Checking builds the "
        "networks of the configs, and a bundle's config is a program: pack only bundles you trust.",
    )
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE", help="folder of a bundle, such as bundles/asi")
    parser.add_argument("--output-dir", "-o", default="dist", metavar="DIR", help="for the zip files (default: dist)")
    parser.add_argument(
        "--source",
        default="",
        metavar="URL",
        help="address of the folder the zip files will be downloaded from, for model_info.json: "
        "https://github.com/OWNER/REPO/releases/download/hosting_storage_v1 (default: none)",
    )
    parser.add_argument(
        "--huggingface",
        default="",
        metavar="OWNER",
        help="a user or an organization on Hugging Face: lay bundles out as its repositories OWNER/NAME hold them, too",
    )
    return parser


def main(argv: Sequence[str], prog: str = "sliceinterp pack") -> int:
    """Run the command.

    Args:
        argv: its arguments.
        prog: name of the command in messages.

    Returns:
        The exit status: 0, or 1 if a bundle cannot be packed, 2 if an option is wrong.

    Example:
        >>> main(["nowhere"])
        1
    """
    options = make_parser(prog).parse_args(argv)
    from monai_sliceinterp.command_line import INPUT_ERRORS, report
    from monai_sliceinterp.zoo import pack_bundles

    try:
        packed = pack_bundles(options.bundles, options.output_dir, options.source, options.huggingface)
    except INPUT_ERRORS as error:
        report(error)
        return 1
    for item in packed:
        print(f"{item.path} ({item.path.stat().st_size / 1e6:.1f} MB, SHA-256 {item.sha256})")
        if item.repository is not None:
            print(f"{item.repository} (to upload it: hf upload {options.huggingface}/{item.name} {item.repository})")
    return 0
