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

"""Packages that only some features need, and the extras of this package that install them."""

from __future__ import annotations

import importlib.util

__all__ = ["require_package"]


def require_package(name: str, feature: str, extra: str) -> None:
    """Check that an optional package is installed, before work is done that needs it.

    Args:
        name: what is imported.
        feature: what needs it.
        extra: extra of this package that installs it, see ``setup.cfg``.

    Raises:
        ImportError: if it is missing, with the command that installs it.

    Example:
        >>> require_package("nowhere", "a picture", "plot")
        Traceback (most recent call last):
        ImportError: a picture needs nowhere; install it by: pip install "monai_sliceinterp[plot]"
    """
    if importlib.util.find_spec(name) is None:
        raise ImportError(f'{feature} needs {name}; install it by: pip install "monai_sliceinterp[{extra}]"')
