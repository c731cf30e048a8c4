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

"""Tables of scores for the tests of the evaluation."""

from __future__ import annotations

import csv


def rows(values, metric="psnr", protocol="p", group="g", **others):
    """Scores of volumes v0, v1, ... by method, None where it failed; others: one value, or one for each volume."""
    return [
        {"volume": f"v{k}", "group": group, "protocol": protocol, "method": method, metric: value}
        | {name: other[k] if isinstance(other, list) else other for name, other in others.items()}
        for method, series in values.items()
        for k, value in enumerate(series)
        if value is not None
    ]


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def cells(line):
    """The cells of a line of a Markdown table."""
    return [cell.strip() for cell in line.strip("|").split("|")]
