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

"""Settings of the PACS node, checked before anything listens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from monai_sliceinterp.checks import not_negative, positive, positive_integer

__all__ = ["NodeSettings", "Peer", "check_ae_title", "parse_address", "parse_peer"]


@dataclass(frozen=True)
class Peer:
    """Another DICOM node.

    Attributes:
        ae_title: its AE title.
        host: its name or address.
        port: its port.
    """

    ae_title: str
    host: str
    port: int


@dataclass(frozen=True)
class NodeSettings:
    """Settings of the node.

    Attributes:
        folder: the queue; it holds patient data while a series is in work.
        destination: where interpolated series are sent to.
        callers: AE titles that may send series or ask for an echo; all others are rejected.
        ae_title: the node's own AE title.
        host: address it listens on.
        port: DICOM port, 0 for any that is free.
        health: address and port of the health page.
        stable_seconds: a series is complete when this long nothing has come for it.
        max_series: series that may be in work at once; those beyond are refused.
        min_free_gib: free disk in GiB below which nothing is taken.
        retry_seconds: first pause after a failure of the destination or a full disk; it doubles up to ten minutes.
        timeout_seconds: time that the interpolation of a series may take.
        keep_days: how long the node remembers what it has done.
        options: options of ``sliceinterp`` for each series, such as ``("--spacing", "1.0")``.

    Raises:
        ValueError: with one line that names the option that is wrong.

    Example:
        >>> NodeSettings(Path("queue"), Peer("PACS", "localhost", 104), ("PACS",), stable_seconds=-1)
        Traceback (most recent call last):
        ...
        ValueError: --stable-age must be a positive number of s, got -1.
    """

    folder: Path
    destination: Peer
    callers: tuple[str, ...]
    ae_title: str = "SLICEINTERP"
    host: str = "127.0.0.1"
    port: int = 11112
    health: tuple[str, int] = ("127.0.0.1", 8112)
    stable_seconds: float = 30.0
    max_series: int = 100
    min_free_gib: float = 5.0
    retry_seconds: float = 10.0
    timeout_seconds: float = 3600.0
    keep_days: float = 90.0
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.callers:
            raise ValueError("no --from is given; expected the AE title of each node that may send.")
        for name, title in (("--ae-title", self.ae_title), *(("--from", caller) for caller in self.callers)):
            check_ae_title(name, title)
        positive("--stable-age", self.stable_seconds, "s")
        positive("--retry-after", self.retry_seconds, "s")
        positive("--timeout", self.timeout_seconds, "s")
        positive("--keep-days", self.keep_days)
        not_negative("--min-free", self.min_free_gib, "GiB")
        positive_integer("--max-series", self.max_series)
        if self.destination.ae_title == self.ae_title:
            raise ValueError(f"--to {self.ae_title}: is this node itself; expected the node that gets the results.")


def check_ae_title(name: str, title: str) -> str:
    r"""Check an AE title: 1 to 16 characters of ASCII, no backslash, nothing but printable ones.

    Args:
        name: the option, for the error.
        title: the AE title.

    Raises:
        ValueError: if it is none.

    Example:
        >>> check_ae_title("--from", "ORTHANC")
        'ORTHANC'
    """
    if (
        not 0 < len(title.strip()) <= len(title) <= 16
        or not title.isascii()
        or not title.isprintable()
        or "\\" in title
    ):
        raise ValueError(f"{name} {title!r}: is no AE title; expected 1 to 16 characters of ASCII without a backslash.")
    return title.strip()


def parse_address(name: str, text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``; brackets stand around an IPv6 address.

    Args:
        name: the option, for the error.
        text: the address.

    Raises:
        ValueError: if it is none.

    Example:
        >>> parse_address("--health", "127.0.0.1:8112"), parse_address("--health", "[::1]:8112")
        (('127.0.0.1', 8112), ('::1', 8112))
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{name} {text}: expected HOST:PORT, such as 127.0.0.1:8112.")
    return host.strip("[]"), int(port)


def parse_peer(name: str, text: str) -> Peer:
    """Read ``AETITLE@HOST:PORT``.

    Args:
        name: the option, for the error.
        text: the node.

    Raises:
        ValueError: if it is none.

    Example:
        >>> parse_peer("--to", "ORTHANC@localhost:4242")
        Peer(ae_title='ORTHANC', host='localhost', port=4242)
    """
    title, at, address = text.rpartition("@")
    host, _, port = address.rpartition(":")
    if not at or not host or not port.isdigit() or not 0 < int(port) <= 65535:
        raise ValueError(f"{name} {text}: expected AETITLE@HOST:PORT, such as ORTHANC@localhost:4242.")
    return Peer(check_ae_title(name, title), *parse_address(name, address))
