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

"""The receiving side of the PACS node: C-STORE and C-ECHO for the nodes that are known."""

from __future__ import annotations

import logging
from io import BytesIO
from typing import cast

from pydicom import dcmread
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    RLELossless,
)
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from monai_sliceinterp.dicom_node.journal import log_event, pseudonym
from monai_sliceinterp.dicom_node.queue import QueueFullError, SeriesQueue
from monai_sliceinterp.dicom_node.settings import NodeSettings

__all__ = ["SOP_CLASSES", "SUCCESS", "TRANSFER_SYNTAXES", "StorageHandler", "start_storage"]

SUCCESS = 0x0000
_OUT_OF_RESOURCES = 0xA700
_OTHER_SOP_CLASS = 0xA900
_NOT_UNDERSTOOD = 0xC000

SOP_CLASSES = [
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MRImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
]
"""What a series can be derived from. Other objects are not taken over: the sender is told when it asks."""

TRANSFER_SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
]
"""Transfer syntaxes that the reader decodes; a sender that has another one has to convert."""

_HEADER = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


class StorageHandler:
    """Handler of C-STORE requests: each instance goes to the queue as it came, undecoded.

    Args:
        queue: where it goes.
    """

    def __init__(self, queue: SeriesQueue) -> None:
        self.queue = queue
        self._refused = ""

    def __call__(self, event: Event) -> int:
        """Take one instance, and return the status of DICOM: success only when it is on the disk."""
        try:
            content = event.encoded_dataset()
            header = dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=list(_HEADER))
            study, series, instance, kind = (str(header.get(name) or "") for name in _HEADER)
        except Exception:  # pydicom lets through whatever a damaged data set leads to
            return self._refuse(_NOT_UNDERSTOOD, "its data set cannot be read")
        if not study or not series or not instance:
            return self._refuse(_NOT_UNDERSTOOD, "its data set lacks the UID of study, series or instance")
        request = cast(C_STORE, event.request)
        if (instance, kind) != (request.AffectedSOPInstanceUID, request.AffectedSOPClassUID):
            return self._refuse(_OTHER_SOP_CLASS, "its data set is of another instance than the request says")
        try:
            self.queue.add(series, instance, content)
        except QueueFullError as error:
            return self._refuse(_OUT_OF_RESOURCES, str(error), series)
        except OSError as error:
            return self._refuse(_OUT_OF_RESOURCES, f"cannot be written ({error.strerror or error})", series)
        self._refused = ""
        return SUCCESS

    def _refuse(self, status: int, reason: str, series: str = "") -> int:
        """Log a refusal, but not each of the hundreds of one series, and return its status."""
        if reason != self._refused:
            self._refused = reason
            log_event("refused", status=f"0x{status:04X}", reason=reason, series=pseudonym(series) if series else None)
        return status


def start_storage(settings: NodeSettings, queue: SeriesQueue) -> ThreadedAssociationServer:
    """Listen for associations, each of which gets a thread; unknown calling and other called AE titles are rejected.

    Args:
        settings: of the node.
        queue: where instances go.

    Raises:
        ValueError: if the address cannot be listened on.
    """
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)  # its log has the data sets of errors
    entity = AE(ae_title=settings.ae_title)
    entity.require_calling_aet = list(settings.callers)
    entity.require_called_aet = True
    entity.add_supported_context(Verification)
    for kind in SOP_CLASSES:
        entity.add_supported_context(kind, TRANSFER_SYNTAXES)
    handlers = [(evt.EVT_C_STORE, StorageHandler(queue)), (evt.EVT_REJECTED, _log_rejection)]
    address = (settings.host, settings.port)
    try:
        server = entity.start_server(address, block=False, evt_handlers=handlers)  # type: ignore[arg-type]
    except OSError as error:
        raise ValueError(
            f"--port {settings.port}: {settings.host} cannot be listened on ({error.strerror or error}); expected a "
            "free port."
        ) from error
    assert server is not None
    return server


def _log_rejection(event: Event) -> None:
    requestor = event.assoc.requestor
    log_event("rejected", calling=str(requestor.ae_title).strip(), address=requestor.address)
