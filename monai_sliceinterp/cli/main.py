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

"""The sub-commands of ``sliceinterp``, and which one is meant."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["COMMANDS", "Command", "main"]


@dataclass(frozen=True)
class Command:
    """Sub-command.

    Attributes:
        help: what it does, in a few words.
        module: module with its function ``main(arguments, prog) -> exit status``, imported when it is called.
    """

    help: str
    module: str


COMMANDS = {
    "interpolate": Command("a scan in, a thin scan out; the default", "monai_sliceinterp.cli.interpolate"),
    "preview": Command("a picture and a page of a scan before and after", "monai_sliceinterp.preview.__main__"),
    "back": Command("a segmentation of the thin volume back onto the scan", "monai_sliceinterp.labels_back"),
    "evaluate": Command("compare methods on your own scans", "monai_sliceinterp.evaluation.__main__"),
    "turing": Command("blinded stacks for readers, and their scores", "monai_sliceinterp.visual_turing.__main__"),
    "bundles": Command("list the bundles that are here, or download one", "monai_sliceinterp.cli.bundles"),
    "serve": Command("a DICOM node that interpolates what is sent to it", "monai_sliceinterp.cli.serve"),
    "pack": Command("write zip files of bundles, as model zoos host them", "monai_sliceinterp.cli.pack"),
}
"""All sub-commands by name. A new one is one entry here."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; those of the command line where None.

    Returns:
        The exit status: 0, 1 if something failed, 2 if an option is wrong.

    Example:
        >>> main(["bundles", "--nonsense"])
        Traceback (most recent call last):
        ...
        SystemExit: 2
    """
    # read by OpenMP when torch is imported: threads that wait for work do not keep others from their core
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    named = bool(arguments) and arguments[0] in COMMANDS
    name = arguments.pop(0) if named else "interpolate"
    command = importlib.import_module(COMMANDS[name].module)
    try:
        return int(command.main(arguments, f"sliceinterp {name}" if named else "sliceinterp"))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
