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

"""The sending side of the PACS node: C-STORE of an interpolated series to the destination."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE

from monai_sliceinterp.dicom_node.settings import Peer

__all__ = ["RefusedError", "UnreachableError", "send_series"]

_CONNECTION_SECONDS = 10
_WARNINGS = range(0xB000, 0xC000)
_OUT_OF_RESOURCES = range(0xA700, 0xA800)


class UnreachableError(Exception):
    """The destination cannot be reached, or has no room: it may later."""


class RefusedError(Exception):
    """The destination does not take an instance: it will not later."""


def send_series(files: Sequence[Path], destination: Peer, ae_title: str, stop: threading.Event) -> None:
    """Send the instances of a series in one association.

    An archive that has one of them already, from an attempt that broke off, knows it by its UID.

    Args:
        files: the instances.
        destination: where they go.
        ae_title: what this node calls itself.
        stop: breaks it off.

    Raises:
        UnreachableError: if another attempt may succeed.
        RefusedError: if it would not.
    """
    entity = AE(ae_title=ae_title)
    entity.connection_timeout = _CONNECTION_SECONDS
    for kind in (CTImageStorage, MRImageStorage):
        entity.add_requested_context(kind, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    where = f"{destination.ae_title} at {destination.host}:{destination.port}"
    association = entity.associate(destination.host, destination.port, ae_title=destination.ae_title)
    if association.is_rejected:
        raise UnreachableError(f"{where} rejects the calling AE title {ae_title}, or is called otherwise")
    if not association.is_established:
        raise UnreachableError(f"{where} cannot be reached")
    try:
        for number, path in enumerate(files, 1):
            if stop.is_set():
                raise UnreachableError("the node ends")
            data = dcmread(path)
            if data.SOPClassUID not in {context.abstract_syntax for context in association.accepted_contexts}:
                raise RefusedError(f"{where} takes no {data.SOPClassUID.name}")
            try:
                answer = association.send_c_store(data)
            except (RuntimeError, OSError) as error:
                raise UnreachableError(f"{where} broke off at instance {number} of {len(files)}") from error
            if "Status" not in answer:
                raise UnreachableError(f"{where} broke off at instance {number} of {len(files)}")
            status = int(answer.Status)
            if status in _OUT_OF_RESOURCES:
                raise UnreachableError(f"{where} has no room (status 0x{status:04X})")
            if status != 0 and status not in _WARNINGS:
                raise RefusedError(f"{where} refuses instance {number} of {len(files)} with status 0x{status:04X}")
    finally:
        if association.is_established:
            association.release()
