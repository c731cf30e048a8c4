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

"""Attributes of a DICOM image that can hold for one derived from it."""

from __future__ import annotations

from pydicom.datadict import keyword_for_tag
from pydicom.tag import BaseTag

__all__ = ["may_hold"]

# Patient, study, equipment, acquisition and procedure. The rest describes pixels, overlays, frames or signatures of the
# source's instances.
_KEPT_GROUPS = (0x0008, 0x0010, 0x0012, 0x0018, 0x0020, 0x0028, 0x0032, 0x0038, 0x0040)
_KEPT_OF_GROUP = {
    0x0020: {
        "AcquisitionNumber",
        "FrameOfReferenceUID",
        "ImageLaterality",
        "Laterality",
        "PositionReferenceIndicator",
        "SeriesNumber",
        "StudyID",
        "StudyInstanceUID",
    },
    0x0028: {
        "BurnedInAnnotation",
        "LossyImageCompression",
        "LossyImageCompressionMethod",
        "LossyImageCompressionRatio",
        "QualityControlImage",
        "RecognizableVisualFeatures",
        "RescaleType",
    },
}
_DROPPED = {
    "AcquisitionMatrix",  # counts of rows and columns that may now be others
    "ContentDate",
    "ContentTime",
    "CreatorVersionUID",
    "DerivationCodeSequence",
    "DerivationDescription",
    "FrameType",
    "ImageType",
    "InPlanePhaseEncodingDirection",
    "InstanceAvailability",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "InstanceCreatorUID",
    "OriginalSpecializedSOPClassUID",
    "RealWorldValueMappingSequence",
    "ReferencedImageEvidenceSequence",
    "ReferencedImageSequence",
    "ReferencedInstanceSequence",
    "ReferencedRawDataSequence",
    "ReferencedSeriesSequence",
    "ReferencedWaveformSequence",
    "RelatedGeneralSOPClassUID",
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesDate",
    "SeriesTime",
    "SliceThickness",
    "SourceImageEvidenceSequence",
    "SourceImageSequence",
    "SpacingBetweenSlices",
    "StudiesContainingOtherReferencedInstancesSequence",
}


def may_hold(tag: BaseTag) -> bool:
    """Check whether an attribute of a source image can hold for an image of other slices with other pixels.

    Args:
        tag: the attribute's tag.

    Example:
        >>> from pydicom.tag import Tag
        >>> may_hold(Tag("PatientID")), may_hold(Tag("SOPInstanceUID"))
        (True, False)
    """
    keyword = keyword_for_tag(tag)
    known = _KEPT_OF_GROUP.get(tag.group)
    return tag.group in _KEPT_GROUPS and keyword not in _DROPPED and (known is None or keyword in known)
