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

"""Write the provenance of an output beside it: which slices are synthesized, and how it was made."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from monai_sliceinterp.files import atomic_path, file_sha256, file_stem
from monai_sliceinterp.geometry import read_adaptation, read_grid
from monai_sliceinterp.provenance import bundle_version, describe_output, input_sha256
from monai_sliceinterp.transforms.deshearing import DESHEARED
from monai_sliceinterp.transforms.saving import save_nifti

__all__ = ["SaveProvenanceD", "SaveProvenanceDict", "SaveProvenanced", "provenance_labels"]


def provenance_labels(image: MetaTensor, mask: Tensor, axis: int) -> MetaTensor:
    """Expand labels of slices to a label volume.

    Args:
        image: ``(C, X, Y, Z)``, whose grid is taken.
        mask: label of every slice, ``(M,)`` uint8.
        axis: spatial axis along which the slices are stacked.

    Returns:
        ``(1, X, Y, Z)`` uint8. Its voxels share memory: it is for reading only.

    Raises:
        ValueError: if there is not one label for every slice.

    Example:
        >>> labels = provenance_labels(
        ...     MetaTensor(torch.zeros(1, 4, 2, 5)), torch.tensor([0, 1], dtype=torch.uint8), axis=1
        ... )
        >>> tuple(labels.shape), labels[0, 0, :, 0].tolist()
        ((1, 4, 2, 5), [0, 1])
    """
    shape = tuple(image.shape[1:])
    if mask.shape != (shape[axis],):
        raise ValueError(f"expected one label for each of the {shape[axis]} slices along axis {axis}, got {len(mask)}.")
    along = [1, 1, 1, 1]
    along[axis + 1] = -1
    return MetaTensor(mask.reshape(along).expand(1, *shape), affine=image.affine)


class SaveProvenanced(MapTransform):
    """Transform that writes, beside a saved volume, which of its slices are synthesized and how it was made.

    For ``scan_interp.nii.gz`` (or the folder ``scan_interp`` of a DICOM series) these are
    ``scan_interp_provenance.nii.gz``, a label volume on the output's grid with 0 = observed and 1 = synthesized, and
    ``scan_interp.json``, see :func:`monai_sliceinterp.provenance.describe_output`. It has to come after
    :class:`monai_sliceinterp.transforms.SaveVolumed`.

    Args:
        keys: saved volumes ``(C, X, Y, Z)``, in the input's axis order, with the grid in the metadata.
        method: name of the method, for the file.
        weights: file of the network's weights; empty for a method that has none.
        bundle_root: folder of the bundle; empty where there is none.
        precision: type in which the network computes.
        allow_missing_keys: do not raise for keys that are not there.

    Raises:
        ValueError: if the weights, the bundle's metadata or the input cannot be read.
        OSError: if a file cannot be written.

    Example:
        >>> import os
        >>> import tempfile
        >>> from monai_sliceinterp.inferers import SplineSliceInferer
        >>> from monai_sliceinterp.transforms import SaveVolumed
        >>> folder = tempfile.mkdtemp()
        >>> scan = MetaTensor(torch.rand(1, 4, 4, 3), meta={"filename_or_obj": f"{folder}/scan.nii.gz"})
        >>> save_nifti(scan, f"{folder}/scan.nii.gz")
        >>> thin = SplineSliceInferer(factor=2)(scan[None])[0]
        >>> _ = SaveProvenanced("pred", method="cubic")(SaveVolumed("pred", f"{folder}/out")({"pred": thin}))
        >>> sorted(os.listdir(f"{folder}/out"))
        ['scan_interp.json', 'scan_interp.nii.gz', 'scan_interp_provenance.nii.gz']
    """

    def __init__(
        self,
        keys: KeysCollection,
        method: str,
        weights: str | Path = "",
        bundle_root: str | Path = "",
        precision: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.method, self.precision = method, precision
        self.weights, self.bundle_root = str(weights), str(bundle_root)

    @cached_property
    def _made_by(self) -> dict[str, Any]:
        """Entries that are the same for all volumes."""
        return {
            "weights_sha256": file_sha256(self.weights) if self.weights else None,
            "bundle": bundle_version(self.bundle_root) if self.bundle_root else None,
            "precision": self.precision,
        }

    def output_files(self, source: str | Path, before: Sequence[Path] = ()) -> list[Path]:
        """List the files that will be written for an input.

        Args:
            source: the file or DICOM folder that the volumes come from.
            before: what earlier steps write; the first is the output that is described.
        """
        return list(_beside(before[0])) if before else []

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write both files for every key; ``provenance`` in its metadata holds the description."""
        result = dict(data)
        for key in self.key_iterator(result):
            output = result[key]
            record = read_grid(output.meta)
            source = output.meta["filename_or_obj"]
            description = describe_output(
                source=source,
                source_sha256=input_sha256(source, output.meta.get("dicom_files", ())),
                method=self.method,
                record=record,
                output_affine=output.affine,
                desheared=bool(output.meta.get(DESHEARED, False)),
                adaptation=read_adaptation(output.meta),
                **self._made_by,
            )
            labels = provenance_labels(output, (~record.observed).to(torch.uint8), record.axis)
            labels_file, description_file = _beside(Path(output.meta["saved_to"]))
            save_nifti(labels, labels_file)
            with atomic_path(description_file) as part:
                part.write_text(json.dumps(description, indent=2, allow_nan=False) + "\n", encoding="utf-8")
            output.meta["provenance"] = description
        return result


def _beside(saved: Path) -> tuple[Path, Path]:
    stem = file_stem(saved)
    return saved.with_name(f"{stem}_provenance.nii.gz"), saved.with_name(f"{stem}.json")


SaveProvenanceD = SaveProvenanceDict = SaveProvenanced
