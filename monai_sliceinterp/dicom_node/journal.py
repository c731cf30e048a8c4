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

"""What the PACS node says: one JSON line for each event, with nothing that tells a patient."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from datetime import datetime, timezone
from typing import Any

__all__ = ["log_event", "now", "pseudonym", "without_uids"]

_UID = re.compile(r"\b\d+(?:\.\d+){4,}\b")


def pseudonym(uid: str) -> str:
    """Return the name by which a series or an instance is called: 16 hexadecimal digits of the SHA-256 of its UID.

    Whoever has the UID finds its name by ``printf UID | sha256sum | cut -c 1-16``; from the name nobody finds the UID.

    Example:
        >>> pseudonym("1.2.840.10008.1.1")
        '7a96f697a695cd07'
    """
    return hashlib.sha256(uid.encode()).hexdigest()[:16]


def without_uids(text: str) -> str:
    """Put "(UID)" for each UID in a text.

    Example:
        >>> without_uids("instance 1.2.840.113619.2.55 is damaged, 0.75 x 0.75 mm")
        'instance (UID) is damaged, 0.75 x 0.75 mm'
    """
    return _UID.sub("(UID)", text)


def now() -> str:
    """Return the time in UTC, to the second, in ISO 8601.

    Example:
        >>> len(now())
        20
    """
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def log_event(event: str, **fields: Any) -> None:
    """Write a line of JSON to the standard output, in one piece; fields that are None are left out.

    Args:
        event: what happened: "listening", "series", "refused", "destination", "disk", "stopped".
        **fields: what is known of it.

    Example:
        >>> log_event("series", series="7a96f697a695cd07", state="done", reason=None)
        {"time": "...Z", "event": "series", "series": "7a96f697a695cd07", "state": "done"}
    """
    content = {"time": now(), "event": event, **{name: value for name, value in fields.items() if value is not None}}
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()
