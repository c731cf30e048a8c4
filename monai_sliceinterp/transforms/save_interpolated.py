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

"""Save interpolated volumes with everything that is wanted beside them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.inferers import Inferer
from monai.transforms import Compose, InvertibleTransform, MapTransform, Transform
from torch import nn

from monai_sliceinterp.checks import some_of, switch
from monai_sliceinterp.files import check_free, typed_path
from monai_sliceinterp.networks.blocks.onnx_network import OnnxNetwork
from monai_sliceinterp.precision import dtype_name, network_dtype
from monai_sliceinterp.transforms.deshearing import Desheard
from monai_sliceinterp.transforms.dicom import SaveDicomSeriesd
from monai_sliceinterp.transforms.labels import InterpolateLabeld
from monai_sliceinterp.transforms.provenance import SaveProvenanced
from monai_sliceinterp.transforms.quality import LeaveOneOutQualityd
from monai_sliceinterp.transforms.restoring import DisagreementMapd, RestoreVolumed
from monai_sliceinterp.transforms.saving import SaveVolumed

__all__ = ["SaveInterpolatedD", "SaveInterpolatedDict", "SaveInterpolatedd"]

_FORMATS = ("nifti", "same", "dicom")


class SaveInterpolatedd(MapTransform):
    """Restore interpolated volumes and save them: the whole postprocessing of a bundle's inference.

    It puts together :class:`RestoreVolumed`, :class:`InterpolateLabeld`, :class:`Desheard`, :class:`SaveVolumed`,
    :class:`SaveDicomSeriesd`, :class:`SaveProvenanced`, :class:`DisagreementMapd` and :class:`LeaveOneOutQualityd`.
    Of a scan ``scan.nii.gz`` it writes ``scan_interp.nii.gz``, and beside it what else is wanted. Switches may be given
    as the texts "true" and "false".

    Args:
        keys: interpolated volumes ``(C, H, W, M)`` as the inferer returns them; they are released.
        transform: the preprocessing, whose invertible transforms are undone.
        inferer: the inferer, which ``quality`` runs again; how much the views of a network disagree is written where it
            was made with ``disagreement=True``.
        network: its network, None for a method that has none.
        output_dir: folder, made if missing.
        output_format: "nifti", "same" (MetaImage or NRRD for inputs of these formats, NIfTI for others), "dicom" (a
            derived series, of an input that was DICOM), or several of these.
        label: whether there is a label "segmentation" to interpolate and save; the path of the label counts as true.
        deshear: resample sheared volumes (a tilted gantry) in the planes of their slices, onto an upright grid.
        provenance: write which slices are synthesized, and how.
        quality: write how well the method does on this very scan, its own slices left out in turns.
        overwrite: replace files that exist.
        resume: leave inputs out whose outputs all exist, see :meth:`is_finished`; others are overwritten.
        method: name of the method.
        weights: file of the network's weights; empty for a method that has none.
        bundle_root: folder of the bundle; empty where there is none.

    Raises:
        ValueError: if a switch or the format is unknown.

    Example:
        >>> import os, tempfile, torch
        >>> from monai.data import MetaTensor
        >>> from monai_sliceinterp.inferers import SplineSliceInferer
        >>> folder, inferer = tempfile.mkdtemp(), SplineSliceInferer(factor=2)
        >>> scan = MetaTensor(torch.rand(1, 8, 8, 3), meta={"filename_or_obj": "scan.nii.gz"})
        >>> data = {"image": scan, "original": scan, "pred": inferer(scan[None])[0]}
        >>> save = SaveInterpolatedd("pred", Compose(), inferer, None, folder)
        >>> save(data)["pred"].shape, os.listdir(folder)
        (torch.Size([1, 8, 8, 5]), ['scan_interp.nii.gz'])
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: InvertibleTransform,
        inferer: Inferer,
        network: Callable[..., Any] | None,
        output_dir: str | Path,
        output_format: str | list[str] = "nifti",
        label: str | Path | bool = "",
        deshear: bool | str = False,
        provenance: bool | str = False,
        quality: bool | str = False,
        overwrite: bool | str = False,
        resume: bool | str = False,
        method: str = "",
        weights: str | Path = "",
        bundle_root: str | Path = "",
    ) -> None:
        super().__init__(keys)
        output_dir = typed_path(output_dir)
        self.output_dir = Path(output_dir)
        formats = some_of("output_format", output_format, _FORMATS)
        if {"nifti", "same"} <= {*formats}:
            raise ValueError(f"output_format is {formats}; expected nifti or same, not both.")
        self.resume = switch("resume", resume)
        self.replace = replace = switch("overwrite", overwrite) or self.resume
        disagreement = getattr(inferer, "disagreement", False)

        def save(key: KeysCollection, **kwargs: Any) -> SaveVolumed:
            return SaveVolumed(key, output_dir, overwrite=replace, same_format="same" in formats, **kwargs)

        restoring: list[Transform] = [DisagreementMapd(keys, transform)] if disagreement else []
        restoring.append(RestoreVolumed(keys, transform, release=True))
        steps: list[Transform] = []
        if label:
            steps.append(InterpolateLabeld("segmentation"))
        if switch("deshear", deshear):
            modes = {**dict.fromkeys(self.keys, "cubic"), "segmentation": "nearest", "disagreement": "linear"}
            steps.append(Desheard(list(modes), self.keys[0], list(modes.values()), allow_missing_keys=True))
        if "nifti" in formats or "same" in formats:
            steps.append(save(keys))
        if "dicom" in formats:
            steps.append(SaveDicomSeriesd(keys, output_dir, method, weights, overwrite=replace))
        if label:
            steps.append(save("segmentation", postfix="interp_label"))
        if switch("provenance", provenance):
            steps.append(SaveProvenanced(keys, method, weights, bundle_root, _precision(inferer, network)))
        if disagreement:
            steps.append(save("disagreement", postfix="disagreement"))
        self.is_independent = not switch("quality", quality)
        """Whether what is left to :meth:`write` needs neither the inferer nor the network."""
        if not self.is_independent:
            steps.append(LeaveOneOutQualityd(keys, inferer, network, method))
        self.restoring, self.steps = Compose(restoring), Compose(steps)
        self._deferred = False

    def check(self, source: str | Path) -> None:
        """Check that the outputs of an input can be written, before they are computed.

        Args:
            source: the file or DICOM folder that the volumes come from.

        Raises:
            ValueError: if an output exists that must not be replaced, or the input cannot be written as DICOM.
        """
        for step in self.steps.transforms:
            if isinstance(step, SaveVolumed | SaveDicomSeriesd):
                step.check(source)
        for file in self.output_files(source):
            check_free(file, self.replace)

    def output_files(self, source: str | Path) -> list[Path]:
        """List the files and folders that will be written for an input.

        Args:
            source: the file or DICOM folder that the volumes come from.
        """
        files: list[Path] = []
        for step in self.steps.transforms:
            if isinstance(step, SaveVolumed | SaveDicomSeriesd | SaveProvenanced | LeaveOneOutQualityd):
                files += step.output_files(source, files)
        return files

    def is_finished(self, source: str | Path) -> bool:
        """Whether all outputs of an input exist."""
        return all(file.exists() for file in self.output_files(source))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Restore and save every key; ``saved_to`` in its metadata contains the path."""
        restored: dict[Hashable, Any] = self.restoring(dict(data))
        return restored if self._deferred else self.write(restored)

    def write(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Save what was restored, as within :meth:`deferred`, which may be done in another thread."""
        return self.steps(dict(data))

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only restore volumes within a block, and leave saving them to :meth:`write`.

        The next volume can then be computed while one is written.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False


def _precision(inferer: Inferer, network: Callable[..., Any] | None) -> str | None:
    """Name of the type in which a network computes; None where there is none, or none with weights."""
    if isinstance(network, nn.Module) and any(isinstance(part, OnnxNetwork) for part in network.modules()):
        return "int8"
    weight = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    return None if weight is None else dtype_name(network_dtype(getattr(inferer, "amp", False), weight.device))


SaveInterpolatedD = SaveInterpolatedDict = SaveInterpolatedd
