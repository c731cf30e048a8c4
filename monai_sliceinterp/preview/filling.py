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

"""Pages of one file: a template of the package whose marks are replaced by texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

__all__ = ["as_script_data", "fill_page"]


def fill_page(package: str, template: str, parts: Mapping[str, str]) -> str:
    """Replace ``{{NAME}}`` in a template of a package, each mark once: marks in the texts themselves stay.

    Args:
        package: name of the package that has the template.
        template: its file name.
        parts: texts by the names of marks, which must be fit for where they stand.

    Example:
        >>> page = fill_page("monai_sliceinterp.preview", "viewer.html", {"TITLE": "{{DATA}}"})
        >>> "<title>{{DATA}}</title>" in page
        True
    """
    text = (resources.files(package) / template).read_text(encoding="utf-8")
    return re.sub("{{(" + "|".join(map(re.escape, parts)) + ")}}", lambda match: parts[match[1]], text)


def as_script_data(data: Any) -> str:
    r"""Write data as JSON that may stand in a script element: no text in it ends the element.

    Example:
        >>> as_script_data({"name": "</script>"})
        '{"name": "\\u003c/script>"}'
    """
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")
