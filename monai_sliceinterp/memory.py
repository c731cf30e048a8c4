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

"""Memory that is free, for the machine and for the container one is in."""

from __future__ import annotations

from pathlib import Path

import psutil

__all__ = ["free_memory"]

_CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Return the number of bytes that can still be taken: of the machine, or of the container where that is less.

    Example:
        >>> free_memory() > 0
        True
    """
    return min([psutil.virtual_memory().available, *_limits(_CGROUP)])


def _limits(root: Path) -> list[int]:
    """Bytes left below the limits of the process's control groups (version 2, else 1), if there are any."""
    left = []
    groups = [root, *(root / line.split(":")[2].strip("/\n") for line in _own_groups())]
    for group in groups:
        for most, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            try:
                limit, taken = (group / most).read_text().strip(), int((group / used).read_text())
                cached = [line for line in (group / "memory.stat").read_text().splitlines() if "inactive_file" in line]
            except (OSError, ValueError):
                continue
            if limit.isdigit():
                left.append(max(int(limit) - taken + int(cached[0].split()[1] if cached else 0), 0))
    return left


def _own_groups() -> list[str]:
    try:
        return Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
