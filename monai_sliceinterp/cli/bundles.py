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

"""``sliceinterp bundles``: what bundles are here, and downloads."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from monai_sliceinterp.arguments import OneLineParser
from monai_sliceinterp.bundles import BUNDLES_VARIABLE, bundle_roots, find_bundles, read_metadata

__all__ = ["main", "make_parser", "modality_of"]


def make_parser(prog: str = "sliceinterp bundles") -> argparse.ArgumentParser:
    """Make the parser of the options.

    Example:
        >>> make_parser().parse_args("download asi --repo OWNER/asi".split()).names
        ['asi']
    """
    parser = OneLineParser(
        prog=prog,
        usage=f"{prog} [list | download NAME ...] [options]",
        description="List the bundles that are here, or download some into the first folder of the list's end.",
        epilog="A bundle's config is a program: download only from where you trust.",
    )
    parser.add_argument("action", nargs="?", default="list", choices=("list", "download"), help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", metavar="NAME", help="bundles to download")
    parser.add_argument("--url", default="", help="folder with zip files and model_info.json, or a zip file")
    parser.add_argument("--repo", default="", metavar="OWNER/NAME", help="repository on Hugging Face")
    parser.add_argument("--bundle-version", default="", metavar="V", help="version, such as 0.1.0; default: the newest")
    return parser


def main(argv: Sequence[str], prog: str = "sliceinterp bundles") -> int:
    """Run the command.

    Args:
        argv: its arguments.
        prog: name of the command in messages.

    Returns:
        The exit status: 0, or 1 if a download fails, 2 if an option is wrong.

    Example:
        >>> main(["download", "none", "--url", "file:///nowhere"])
        1
    """
    parser = make_parser(prog)
    options = parser.parse_args(argv)
    if (options.action == "download") != bool(options.names):
        parser.error("expected list, or download with names of bundles")
    if options.action == "download":
        from monai_sliceinterp.bundles.download import download_bundle
        from monai_sliceinterp.command_line import report

        for name in options.names:
            try:
                print(f"{name}: {download_bundle(name, options.url, options.repo, options.bundle_version)}")
            except ValueError as error:
                report(error)
                return 1
        return 0
    for name, folder in find_bundles().items():
        metadata = read_metadata(folder)
        print(f"{name:10} {metadata.get('version', '?'):7} {modality_of(metadata) or '?':3} {folder}")
        print(f"{'':10} {metadata.get('description', 'no description')}")
    chosen = "" if os.environ.get(BUNDLES_VARIABLE) else f" ({BUNDLES_VARIABLE} names another one)"
    print("Looked for in: " + ", ".join(map(str, bundle_roots())) + chosen)
    return 0


def modality_of(metadata: dict[str, object]) -> str:
    """Read for which modality a bundle was made; empty where its metadata do not tell.

    Example:
        >>> modality_of({"network_data_format": {"inputs": {"image": {"modality": "CT"}}}})
        'CT'
    """
    part: object = metadata
    for key in ("network_data_format", "inputs", "image", "modality"):
        part = part.get(key) if isinstance(part, dict) else None
    return part if isinstance(part, str) else ""
