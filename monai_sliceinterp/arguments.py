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

"""Parsers of command lines: errors in one line, and the nearest option of one that is misspelt."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

__all__ = ["OneLineParser"]


class OneLineParser(argparse.ArgumentParser):
    """A parser of arguments that reports an error in one line, with exit status 2.

    Words of long options may be joined by hyphens or underscores. An option that is unknown is refused with the nearest
    that there is; options are not abbreviated.

    Example:
        >>> parser = OneLineParser()
        >>> _ = parser.add_argument("--output-dir")
        >>> parser.parse_args(["--output_dir", "out"]).output_dir
        'out'
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        """End the program."""
        self.exit(2, f"error: {message} (--help lists the options)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments, of which long options have been given their usual spelling."""
        return super().parse_known_args(self._spelt(sys.argv[1:] if args is None else args), namespace)

    def _spelt(self, args: Sequence[str]) -> list[str]:
        """Spell long options as they were defined, and refuse those that were not."""
        known = {option.replace("_", "-"): option for option in self._option_string_actions if option[:2] == "--"}
        spelt = list(args)
        if self._subparsers is not None:  # whose options are checked by them
            return spelt
        for index, word in enumerate(spelt[: spelt.index("--") if "--" in spelt else None]):
            if word.startswith("--"):
                name, equals, value = word.partition("=")
                option = known.get(name.replace("_", "-"))
                if option is None:
                    names = [text.strip("-") for text in sorted(known)]
                    near = difflib.get_close_matches(name.replace("_", "-").strip("-"), names, n=1)
                    self.error(f"unknown option {name}{f'; did you mean --{near[0]}?' if near else ''}")
                spelt[index] = f"{option}{equals}{value}"
        return spelt
