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

"""What the commands of the package share."""

from __future__ import annotations

import argparse
from typing import NoReturn

__all__ = ["OneLineParser"]


class OneLineParser(argparse.ArgumentParser):
    """A parser of arguments that tells an error in one line, with exit status 2.

    Example:
        >>> parser = OneLineParser()
        >>> _ = parser.add_argument("--factor", type=int)
        >>> parser.parse_args(["--factor", "4"]).factor
        4
    """

    def error(self, message: str) -> NoReturn:
        """End the program."""
        self.exit(2, f"error: {message} (--help tells the options)\n")
