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

"""Slice interpolation of anisotropic medical volumes for MONAI."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

# before torch is imported: threads that spin while others compute make commands many times as slow on a busy machine
if any(
    flag == "-m" and name.startswith(__name__) for flag, name in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
):
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from monai_sliceinterp import (
        bundles,
        checks,
        command_line,
        data,
        engines,
        evaluation,
        geometry,
        handlers,
        inferers,
        losses,
        metrics,
        networks,
        transforms,
        zoo,
    )
    from monai_sliceinterp.api import interpolate

try:
    __version__ = version("monai_sliceinterp")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"

__all__ = [
    "bundles",
    "checks",
    "command_line",
    "data",
    "engines",
    "evaluation",
    "geometry",
    "handlers",
    "inferers",
    "interpolate",
    "losses",
    "metrics",
    "networks",
    "transforms",
    "zoo",
]


def __getattr__(name: str) -> Any:
    """Import what is used when it is used: ``sliceinterp --help`` needs neither MONAI nor torch."""
    if name == "interpolate":
        return importlib.import_module(f"{__name__}.api").interpolate
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
