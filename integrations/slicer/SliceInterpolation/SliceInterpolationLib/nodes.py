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

"""Slicer's nodes: a volume and a segmentation to files, and the results from files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk

__all__ = ["load_results", "modality_of", "segments_of", "write_inputs"]

_COLOR = (0.95, 0.6, 0.1)
_OPACITY = 0.35


def modality_of(volume: Any) -> str:
    """Return "CT" or "MR" where the volume comes from DICOM that says so, else an empty text."""
    instances = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    modality = slicer.dicomDatabase.instanceValue(instances[0], "0008,0060") if instances else ""
    return modality if modality in ("CT", "MR") else ""


def segments_of(segmentation: Any) -> dict[str, tuple[int, str, tuple[float, ...]]]:
    """Return value, name and color of every segment by its identifier; values count from 1."""
    parts = segmentation.GetSegmentation()
    found = [(each, parts.GetSegment(each)) for each in parts.GetSegmentIDs()]
    return {
        each: (value, segment.GetName(), tuple(segment.GetColor())) for value, (each, segment) in enumerate(found, 1)
    }


def write_inputs(volume: Any, segmentation: Any, scan: str, label: str) -> bool:
    """Write a volume, and a segmentation as a label volume on its grid.

    Args:
        volume: the scalar volume node.
        segmentation: the segmentation node; None: none.
        scan: file for the volume.
        label: file for the label volume.

    Returns:
        Whether there is a label volume.

    Raises:
        ValueError: with one line, if a node cannot be written, there is no segment, or two of them overlap.
    """
    _export(volume, scan)
    if segmentation is None:
        return False
    values = _label_values(volume, segmentation)
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    node = slicer.util.addVolumeFromArray(values, matrix, "sliceinterp label", "vtkMRMLLabelMapVolumeNode")
    try:
        _export(node, label)
    finally:
        _remove(node)
    return True


def _label_values(volume: Any, segmentation: Any) -> np.ndarray:
    """Draw the segments onto the grid of a volume, ``(K, J, I)``."""
    segments = segments_of(segmentation)
    if not segments:
        raise ValueError(f"{segmentation.GetName()}: has no segment; expected one or more, or no segmentation.")
    shape = slicer.util.arrayFromVolume(volume).shape
    values = np.zeros(shape, np.uint8 if len(segments) < 256 else np.int16)
    for identifier, (value, name, _) in segments.items():
        inside = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, volume) > 0
        if taken := int(values[inside].max(initial=0)):
            other = next(name for number, name, _ in segments.values() if number == taken)
            raise ValueError(
                f"{segmentation.GetName()}: {other} and {name} overlap; expected segments that do not, as a label "
                "volume has one value for each voxel."
            )
        values[inside] = value
    return values


def _export(node: Any, path: str) -> None:
    if not slicer.util.exportNode(node, path) or not Path(path).is_file():
        raise ValueError(f"{node.GetName()}: cannot be written to {path}; expected a volume, and room on the disk.")


def load_results(files: Mapping[str, str], volume: Any, segmentation: Any = None) -> dict[str, Any]:
    """Load what a run wrote, beside what it was made from.

    Args:
        files: the files, see :meth:`SliceInterpolationLib.run.Run.results`.
        volume: the volume node that was interpolated.
        segmentation: the segmentation node that was interpolated; None: none.

    Returns:
        The new nodes: ``volume``, ``synthesized``, and of a segmentation ``label``. There are all of them or, after an
        error, none.
    """
    nodes: dict[str, Any] = {}
    try:
        name = slicer.mrmlScene.GenerateUniqueName(f"{volume.GetName()} interpolated")
        result = nodes["volume"] = slicer.util.loadVolume(files["volume"], {"name": name, "show": False})
        _look_like(result, volume)
        segments = {"synthesized": (1, "synthesized", _COLOR)}
        overlay = nodes["synthesized"] = _segmentation(files["synthesized"], f"{name}: synthesized", segments, result)
        display = overlay.GetDisplayNode()
        display.SetOpacity2DFill(_OPACITY)
        display.SetOpacity2DOutline(0.0)
        display.SetVisibility3D(False)
        if segmentation is not None:
            name = slicer.mrmlScene.GenerateUniqueName(f"{segmentation.GetName()} interpolated")
            nodes["label"] = _segmentation(files["label"], name, segments_of(segmentation), result)
        storage = result.GetStorageNode()  # of the temporary file
        if storage is not None:
            slicer.mrmlScene.RemoveNode(storage)
        for node in nodes.values():  # at the end: until then all of them are on one grid
            node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
        slicer.util.setSliceViewerLayers(background=result)
    except BaseException:
        for node in nodes.values():
            _remove(node)
        raise
    return nodes


def _remove(node: Any) -> None:
    """Remove a node with those that only it has, which a scene keeps."""
    for part in (node.GetStorageNode(), node.GetDisplayNode(), node):
        if part is not None:
            slicer.mrmlScene.RemoveNode(part)


def _look_like(result: Any, volume: Any) -> None:
    """Show a volume with the window and the colors of another one."""
    result.CreateDefaultDisplayNodes()
    new, old = result.GetDisplayNode(), volume.GetDisplayNode()
    if old is not None:
        new.SetAutoWindowLevel(False)
        new.SetWindowLevel(old.GetWindow(), old.GetLevel())
        new.SetAndObserveColorNodeID(old.GetColorNodeID())


def _segmentation(path: str, name: str, segments: Mapping[str, tuple[int, str, tuple[float, ...]]], volume: Any) -> Any:
    """Make a segmentation node of a label volume in a file, on the grid of a volume node."""
    labels = slicer.util.loadLabelVolume(path, {"show": False})
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    try:
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        values = slicer.util.arrayFromVolume(labels)
        for identifier, (value, title, color) in segments.items():
            new = node.GetSegmentation().AddEmptySegment(identifier, title, color)
            slicer.util.updateSegmentBinaryLabelmapFromArray((values == value).astype(np.uint8), node, new, volume)
    except BaseException:
        _remove(node)
        raise
    finally:
        _remove(labels)
    return node
