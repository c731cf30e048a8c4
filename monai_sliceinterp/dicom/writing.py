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

"""Write an interpolated volume as a derived DICOM series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from pydicom import Dataset, config
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

from monai_sliceinterp.dicom.derivation import SourceSeries, SourceSlice, code_item, reference_item
from monai_sliceinterp.dicom.encoding import PixelEncoding, decimal_string
from monai_sliceinterp.dicom.planes import SlicePlanes
from monai_sliceinterp.files import atomic_folder
from monai_sliceinterp.geometry import slice_geometry
from monai_sliceinterp.provenance import SOFTWARE

__all__ = ["write_dicom_series"]

# attributes that a CT or MR image has to have, be they empty (type 2), and that the source may lack
_MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
    *("PatientPosition", "PositionReferenceIndicator", "Manufacturer", "AcquisitionNumber"),
)
_MAY_BE_EMPTY_IN = {
    "CT": ("KVP",),
    "MR": ("ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength"),
}


def write_dicom_series(
    image: MetaTensor,
    source_files: Sequence[str | Path],
    folder: str | Path,
    *,
    axis: int,
    observed: Sequence[bool],
    derivation: str,
    description: str = "interpolated",
    thickness: float | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write a volume as a series derived from the one it was made from, one file a slice.

    Patient, study, frame of reference and what else is the same in all source slices are taken over; series and
    instances get new UIDs, the position and spacing of the affine, and references to the source slices they come from.
    Observed and synthesized instances differ in the fourth value of ImageType (0008,0008), ``OBSERVED`` or
    ``SYNTHESIZED``; ImageComments and DerivationDescription say the same in words. The folder appears when all of it
    is written.

    Slices are numbered along the normal of their planes, as readers sort them; that may be the array's order or its
    reverse. Their window is that of the nearest source slice.

    Args:
        image: ``(1, X, Y, Z)``, intensities in the source's units (HU for CT), with the affine in mm (RAS).
        source_files: files of the source series, or the one file of a multi-frame object.
        folder: folder to write; the one above must exist.
        axis: spatial axis along which slices are stacked: 0, 1 or 2.
        observed: of every slice, in the array's order, whether it was copied from the source.
        derivation: how the volume was made: method, version and hash of the weights.
        description: what SeriesDescription ends with.
        thickness: slice thickness in mm, for a method that restores thin slabs. None: that of the nearest source slice
            where the planes are parallel to the source's (interpolation makes slabs no thinner), else unknown.
        overwrite: replace a folder that holds nothing but DICOM files.

    Returns:
        The files ``0001.dcm``, ``0002.dcm``, ... in their order along the normal.

    Raises:
        ValueError: if the source is not a CT or MR series, the volume is not one 3D volume or cannot be expressed in
            DICOM, or the folder exists.
        OSError: if a file cannot be written.

    Example:
        >>> import torch
        >>> volume = MetaTensor(torch.zeros(1, 4, 4, 3), meta={"filename_or_obj": "scan.nii.gz"})
        >>> write_dicom_series(volume, [], "out", axis=2, observed=[True, False, True], derivation="linear")
        Traceback (most recent call last):
        ...
        ValueError: scan.nii.gz: is not DICOM; expected a DICOM input for output_format dicom, ...
    """
    name = image.meta.get("filename_or_obj", folder)
    if image.ndim != 4 or image.shape[0] != 1:
        raise ValueError(
            f"{name}: has shape {tuple(image.shape)}; expected one 3D volume for output_format dicom, no time series "
            "or channels; nifti writes these."
        )
    slices = np.moveaxis(image[0].detach().cpu().numpy(), axis, 0)
    if len(observed) != len(slices):
        raise ValueError(f"{name}: expected {len(slices)} entries of observed, one a slice, got {len(observed)}.")
    if not source_files:
        raise ValueError(
            f"{name}: is not DICOM; expected a DICOM input for output_format dicom, which takes patient and study from "
            "there; nifti writes any."
        )
    try:
        planes = SlicePlanes.create(image.affine, axis, len(slices))
        encoding = PixelEncoding.create(slices)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    target = Path(folder)
    with config.disable_value_validation(), _whole_folder(target, overwrite) as part:  # the source's values may be odd
        series = SourceSeries.read(source_files)
        common = _series_header(series, planes, encoding, description)
        common.SpacingBetweenSlices = decimal_string(slice_geometry(image.affine, axis=axis).slice_spacing)
        stack = series.along(planes.normal)
        if not stack:  # every slice crosses all of the source's
            instances = {item.sop_instance: item for item in series.slices}
            common.SourceImageSequence = [reference_item(item, whole=True) for item in instances.values()]
        names = [_file_name(number, len(slices)) for number in range(1, len(slices) + 1)]
        for number, (index, position) in enumerate(zip(planes.order, planes.positions, strict=True), start=1):
            data = Dataset()
            data.update(common)
            _derive(data, series, stack, float(position @ planes.normal), bool(observed[index]), derivation)
            if thickness is not None:
                data.SliceThickness = decimal_string(thickness)
            data.InstanceNumber, data.ImagePositionPatient = number, [decimal_string(value) for value in position]
            data.SliceLocation = decimal_string(float(position @ planes.normal))
            pixels = encoding.encode(slices[index].T)
            data.Rows, data.Columns = pixels.shape
            data.PixelData = pixels.tobytes()
            data["PixelData"].VR = "OW"
            _save(data, series.storage_class, part / names[number - 1])
    return [target / name for name in names]


def _series_header(series: SourceSeries, planes: SlicePlanes, encoding: PixelEncoding, description: str) -> Dataset:
    """Collect the attributes that all instances have in common."""
    common = Dataset()
    common.update(series.common)
    modality = "CT" if series.storage_class == CTImageStorage else "MR"
    for keyword in _MAY_BE_EMPTY + _MAY_BE_EMPTY_IN[modality]:
        if keyword not in common:
            setattr(common, keyword, None)
    for keyword, value in (("FrameOfReferenceUID", generate_uid()), ("StudyInstanceUID", generate_uid())):
        if not common.get(keyword):
            setattr(common, keyword, value)
    common.Modality, common.SOPClassUID, common.SeriesInstanceUID = modality, series.storage_class, generate_uid()
    number = common.get("SeriesNumber")
    common.SeriesNumber = min((number if isinstance(number, int) else 0) + 1000, 2**31 - 1)
    source_description = str(common.get("SeriesDescription") or "")[: 63 - len(description)]  # 64 characters in all
    common.SeriesDescription = f"{source_description} {description}".strip()
    now = _now(common.get("TimezoneOffsetFromUTC"))
    for moment in ("InstanceCreation", "Content", "Series"):
        setattr(common, f"{moment}Date", now.strftime("%Y%m%d"))
        setattr(common, f"{moment}Time", now.strftime("%H%M%S.%f"))
    common.DerivationCodeSequence = [code_item("SpatialResampling")]
    common.ContributingEquipmentSequence = [*common.get("ContributingEquipmentSequence", ()), _equipment(now)]
    if modality == "MR":  # these must not be empty
        common.ScanningSequence = common.get("ScanningSequence") or "RM"
        common.SequenceVariant = common.get("SequenceVariant") or "NONE"

    common.ImageOrientationPatient = [decimal_string(value) for value in planes.orientation.ravel()]
    common.PixelSpacing = [decimal_string(value) for value in planes.pixel_spacing]
    common.SamplesPerPixel, common.PhotometricInterpretation = 1, "MONOCHROME2"
    common.BitsAllocated, common.BitsStored, common.HighBit = 16, 16, 15
    common.PixelRepresentation = int(encoding.signed)
    kind = common.pop("RescaleType", None)
    if modality == "CT" or not encoding.is_identity:  # a plain MR image has no such attributes
        common.RescaleSlope, common.RescaleIntercept = (
            decimal_string(encoding.slope),
            decimal_string(encoding.intercept),
        )
        common.RescaleType = kind.value if kind else "HU" if modality == "CT" else "US"
    return common


def _now(offset: str | None) -> datetime:
    """Return the time in the zone of the source's times, else in that of the machine."""
    zone = None
    with suppress(ValueError):
        zone = datetime.strptime(offset or "", "%z").tzinfo
    return datetime.now(zone)


def _equipment(now: datetime) -> Dataset:
    """Item of ContributingEquipmentSequence for this package."""
    from monai_sliceinterp import __version__  # known once the whole package is imported

    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item("ProcessingEquipment")]
    item.Manufacturer, item.ManufacturerModelName, item.SoftwareVersions = SOFTWARE, SOFTWARE, __version__
    item.ContributionDateTime = now.strftime("%Y%m%d%H%M%S.%f")
    item.ContributionDescription = "slice interpolation"
    return item


def _derive(
    data: Dataset,
    series: SourceSeries,
    stack: list[tuple[float, SourceSlice]],
    distance: float,
    observed: bool,
    derivation: str,
) -> None:
    """Set the attributes that say where one slice comes from, its window and thickness."""
    nearest, thickness, origin = series.slices[0], None, "from the whole series"
    if stack:
        sources, nearest, origin = _neighbors(stack, distance, observed)
        thickness = nearest.frame.thickness
        data.SourceImageSequence = [reference_item(item) for item in sources]
    data.SliceThickness = None if thickness is None else decimal_string(thickness)
    data.update(nearest.window)
    flavor = nearest.image_type[2] if len(nearest.image_type) > 2 else "OTHER"
    flavor = "AXIAL" if series.storage_class == CTImageStorage else flavor
    data.ImageType = ["DERIVED", "SECONDARY", flavor, "OBSERVED" if observed else "SYNTHESIZED"]
    data.ImageComments = "observed slice" if observed else "synthesized slice"
    data.DerivationDescription = f"{derivation}; {data.ImageComments}, {'copied' if observed else 'computed'} {origin}"


def _neighbors(
    stack: list[tuple[float, SourceSlice]], distance: float, observed: bool
) -> tuple[list[SourceSlice], SourceSlice, str]:
    """Find the source slices on both sides, the nearer one, and say in words where between them the slice lies."""
    distances = [height for height, _ in stack]
    lower = int(np.clip(np.searchsorted(distances, distance, side="right") - 1, 0, max(len(stack) - 2, 0)))
    upper = min(lower + 1, len(stack) - 1)
    gap = distances[upper] - distances[lower]
    fraction = round(min(max((distance - distances[lower]) / gap, 0.0), 1.0), 4) if gap > 0 else 0.0
    before, after = stack[lower][1], stack[upper][1]
    nearest = before if fraction < 0.5 else after
    if observed:
        return [nearest], nearest, f"from {nearest.name}"
    if fraction in (0.0, 1.0):
        return [nearest], nearest, f"at the place of {nearest.name}"
    return [before, after], nearest, f"at {fraction:g} of the gap between {before.name} and {after.name}"


def _file_name(number: int, count: int) -> str:
    """Name a file so that names sort as the slices do."""
    return f"{number:0{max(4, len(str(count)))}d}.dcm"


def _save(data: Dataset, storage_class: UID, path: Path) -> None:
    data.SOPInstanceUID = generate_uid()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = storage_class
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)


@contextmanager
def _whole_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Give a hidden folder to write to, and rename it when it is complete."""
    if folder.exists() and not overwrite:
        raise ValueError(f"{folder}: exists already; expected a new folder, or overwrite=True.")
    if folder.exists() and not (folder.is_dir() and all(file.suffix == ".dcm" for file in folder.iterdir())):
        raise ValueError(f"{folder}: holds more than a DICOM series; expected a folder that can be replaced.")
    with atomic_folder(folder) as part:
        yield part
