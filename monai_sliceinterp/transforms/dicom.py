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

"""Write volumes as derived DICOM series."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_sliceinterp.checks import switch
from monai_sliceinterp.dicom.series import is_dicom
from monai_sliceinterp.dicom.writing import write_dicom_series
from monai_sliceinterp.files import check_free, file_sha256, file_stem
from monai_sliceinterp.geometry import read_grid, slice_geometry
from monai_sliceinterp.provenance import SOFTWARE

__all__ = ["SaveDicomSeriesD", "SaveDicomSeriesDict", "SaveDicomSeriesd"]


class SaveDicomSeriesd(MapTransform):
    """Transform that writes volumes read from DICOM to ``<output_dir>/<stem>_<postfix>/0001.dcm`` and so on.

    It stands in for :class:`monai_sliceinterp.transforms.SaveVolumed`. The content of the series is described in
    :func:`monai_sliceinterp.dicom.writing.write_dicom_series`.

    Args:
        keys: volumes ``(1, X, Y, Z)`` from :class:`monai_sliceinterp.transforms.RestoreVolumed`, with their affine, and
            the grid, ``filename_or_obj`` and ``dicom_files`` in the metadata.
        output_dir: folder, made if missing.
        method: name of the method, for the derivation description.
        weights: file of the network's weights; empty for a method that has none.
        postfix: end of the folder's name, and of the series description.
        thin: whether the method restores thin slabs, so that SliceThickness is the output's slice spacing; if not, it
            is the source's. None: it does if it does not keep the observed slices.
        overwrite: replace a series that is there.
        allow_missing_keys: do not raise for keys that are not there.

    Raises:
        ValueError: if the input was not a DICOM series of CT or MR, the volume is a time series, its rows and columns
            are not perpendicular, or the folder exists.
        OSError: if a file cannot be written.

    Example:
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> from monai_sliceinterp.inferers import SplineSliceInferer
        >>> scan = MetaTensor(torch.rand(1, 4, 4, 3), meta={"filename_or_obj": "scan.nii.gz"})
        >>> thin = SplineSliceInferer(factor=2)(scan[None])[0]
        >>> SaveDicomSeriesd("pred", "out", method="cubic")({"pred": thin})
        Traceback (most recent call last):
        ...
        ValueError: scan.nii.gz: is not DICOM; expected a DICOM input for output_format dicom, ...
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        method: str,
        weights: str | Path = "",
        postfix: str = "interp",
        thin: bool | None = None,
        overwrite: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir, self.method, self.weights = Path(output_dir), method, str(weights)
        self.postfix, self.overwrite = postfix, switch("overwrite", overwrite)
        self.thin = None if thin is None else switch("thin", thin)

    @cached_property
    def derivation(self) -> str:
        """Description of how the volumes are made."""
        from monai_sliceinterp import __version__  # known once the whole package is imported

        weights = f", weights SHA-256 {file_sha256(self.weights)[:16]}" if self.weights else ""
        return f"slice interpolation by {self.method} of {SOFTWARE} {__version__}{weights}"

    def check(self, source: str | Path) -> None:
        """Check that the series made of a file or folder can be written, before it is computed.

        Args:
            source: the DICOM folder or multi-frame file that the volumes come from.

        Raises:
            ValueError: if it is not DICOM, or a series exists that must not be replaced.
        """
        if not Path(source).is_dir() and not is_dicom(source):
            raise ValueError(f"{source}: is not DICOM; expected a DICOM input for output_format dicom.")
        check_free(self._folder(source), self.overwrite)

    def output_files(self, source: str | Path, before: Sequence[Path] = ()) -> list[Path]:
        """List the folder that will be written for an input.

        Args:
            source: the DICOM folder or multi-frame file that the volumes come from.
            before: what earlier steps write.
        """
        return [self._folder(source)]

    def _folder(self, source: str | Path) -> Path:
        return self.output_dir / f"{file_stem(source)}_{self.postfix}"

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write every key; ``saved_to`` in its metadata is the folder."""
        result = dict(data)
        for key in self.key_iterator(result):
            output = result[key]
            record = read_grid(output.meta)
            thin = not record.keep_observed if self.thin is None else self.thin
            source = output.meta["filename_or_obj"]
            folder = self._folder(source)
            folder.parent.mkdir(parents=True, exist_ok=True)
            write_dicom_series(
                output,
                output.meta.get("dicom_files", ()),
                folder,
                axis=record.axis,
                observed=record.observed.tolist(),
                derivation=self.derivation,
                description=self.postfix,
                thickness=slice_geometry(output, axis=record.axis).slice_spacing if thin else None,
                overwrite=self.overwrite,
            )
            output.meta["saved_to"] = str(folder)
        return result


SaveDicomSeriesD = SaveDicomSeriesDict = SaveDicomSeriesd
