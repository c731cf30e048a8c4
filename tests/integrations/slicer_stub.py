# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Stub of what the module uses of 3D Slicer: nodes with arrays, a scene, files through nibabel, and widgets.

It has nothing else, so that a name that the real one does not have either, as far as it was looked up, is an error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nibabel as nib
import numpy as np


class Matrix:
    values = np.eye(4)


class Display:
    def __init__(self):
        self.shown = {}

    def __getattr__(self, name):
        known = ("Opacity2DFill", "Opacity2DOutline", "Visibility3D", "AutoWindowLevel", "WindowLevel")
        if name[:3] != "Set" or name[3:] not in (*known, "AndObserveColorNodeID"):
            raise AttributeError(name)
        return lambda *values: self.shown.update({name[3:]: values})

    def GetWindow(self):
        return self.shown["WindowLevel"][0]

    def GetLevel(self):
        return self.shown["WindowLevel"][1]

    def GetColorNodeID(self):
        return "vtkMRMLColorTableNodeGrey"


class Node:
    def __init__(self, name, array=None, affine=None):
        self.name, self.array, self.affine = name, array, affine
        self.display = self.storage = self.transform = None
        self.attributes = {}

    def GetName(self):
        return self.name

    def GetAttribute(self, key):
        return self.attributes.get(key)

    def GetTransformNodeID(self):
        return self.transform

    def SetAndObserveTransformNodeID(self, identifier):
        self.transform = identifier

    def GetStorageNode(self):
        return self.storage

    def GetDisplayNode(self):
        return self.display

    def CreateDefaultDisplayNodes(self):
        self.display = Display()


class Volume(Node):
    def GetIJKToRASMatrix(self, matrix):
        matrix.values = self.affine


class Segment:
    def __init__(self, name, color):
        self.name, self.color, self.mask = name, color, None

    def GetName(self):
        return self.name

    def GetColor(self):
        return self.color


class Segmentation(Node):
    """Node and segmentation in one."""

    def __init__(self, name):
        super().__init__(name)
        self.segments, self.reference = {}, None

    def GetSegmentation(self):
        return self

    def GetSegmentIDs(self):
        return tuple(self.segments)

    def GetSegment(self, identifier):
        return self.segments[identifier]

    def AddEmptySegment(self, identifier, name, color):
        self.segments[identifier] = Segment(name, color)
        return identifier

    def SetReferenceImageGeometryParameterFromVolumeNode(self, volume):
        self.reference = volume


class Scene:
    def __init__(self):
        self.nodes = []

    def add(self, node):
        self.nodes.append(node)
        return node

    def AddNewNodeByClass(self, kind, name):
        assert kind == "vtkMRMLSegmentationNode"
        return self.add(Segmentation(name))

    def RemoveNode(self, node):
        if isinstance(node, Display):  # which are not counted
            return
        self.nodes.remove(node)
        for other in self.nodes:
            if other.storage is node:
                other.storage = None

    def GenerateUniqueName(self, name):
        return name


def make_util(scene, environment):
    """``slicer.util``."""
    util = ModuleType("slicer.util")
    util.errors, util.background = [], None

    def exportNode(node, filename, properties=None, world=False):
        nib.save(nib.Nifti1Image(node.array.T, node.affine), filename)
        return True

    def load(filename, properties):
        image = nib.load(filename)
        node = Volume(properties.get("name", "loaded"), np.asarray(image.dataobj).T, image.affine)
        node.storage = scene.add(Node(f"storage of {node.name}"))
        return scene.add(node)

    def addVolumeFromArray(narray, ijkToRAS=None, name=None, nodeClassName=None):
        return scene.add(Volume(name, narray, getattr(ijkToRAS, "values", ijkToRAS)))

    def arrayFromSegmentBinaryLabelmap(segmentationNode, segmentId, referenceVolumeNode=None):
        mask = segmentationNode.segments[segmentId].mask
        assert mask.shape == referenceVolumeNode.array.shape
        return mask

    def updateSegmentBinaryLabelmapFromArray(narray, segmentationNode, segmentId, referenceVolumeNode=None):
        assert narray.shape == referenceVolumeNode.array.shape and segmentationNode.transform is None
        segmentationNode.segments[segmentId].mask = narray

    def setSliceViewerLayers(background=None):
        util.background = background

    util.exportNode, util.loadVolume, util.loadLabelVolume = exportNode, load, load
    util.addVolumeFromArray, util.arrayFromVolume = addVolumeFromArray, lambda node: node.array
    util.arrayFromSegmentBinaryLabelmap = arrayFromSegmentBinaryLabelmap
    util.updateSegmentBinaryLabelmapFromArray = updateSegmentBinaryLabelmapFromArray
    util.setSliceViewerLayers, util.errorDisplay = setSliceViewerLayers, util.errors.append
    util.startupEnvironment = lambda: dict(environment)
    return util


class Signal:
    def __init__(self):
        self.slots = []

    def connect(self, slot):
        self.slots.append(slot)

    def emit(self, *values):
        for slot in self.slots:
            slot(*values)


class Widget:
    """Any widget: properties are attributes, and what it is given is kept."""

    def __init__(self, text=""):
        self.text, self.items, self.currentIndex, self.value, self.node = text, [], 0, 0, None
        self.clicked, self.currentIndexChanged, self.timeout = Signal(), Signal(), Signal()
        self.lines, self.active, self.currentPath = [], False, ""

    def addWidget(self, *_):
        pass

    def addStretch(self, *_):
        pass

    def addRow(self, *_):
        pass

    def setMRMLScene(self, scene):
        self.scene = scene

    def currentNode(self):
        return self.node

    def addItems(self, items):
        self.items += items

    def clear(self):
        self.items, self.currentIndex = [], 0

    @property
    def currentText(self):
        return self.items[self.currentIndex]

    @currentText.setter
    def currentText(self, text):
        self.currentIndex = self.items.index(text)

    def appendPlainText(self, line):
        self.lines.append(line)

    def start(self):
        self.active = True

    def stop(self):
        self.active = False


class Settings:
    kept = {}

    def value(self, key, default):
        return self.kept.get(key, default)

    def setValue(self, key, value):
        self.kept[key] = value


class ModuleBase:
    def __init__(self, parent=None):
        self.parent, self.layout = parent, Widget()

    def setup(self):
        pass


def install(monkeypatch, folder: Path):
    """Put the stub where Slicer's modules are, and return its ``slicer``."""
    slicer, scripted = ModuleType("slicer"), ModuleType("slicer.ScriptedLoadableModule")
    environment = {**os.environ, "PYTHONHOME": "/slicer/python", "ITK_AUTOLOAD_PATH": "/slicer/lib/plugins"}
    slicer.mrmlScene = Scene()
    slicer.util = make_util(slicer.mrmlScene, environment)
    slicer.app = SimpleNamespace(slicerHome=str(folder / "Slicer"), temporaryPath=str(folder / "temporary"))
    slicer.dicomDatabase = SimpleNamespace(instanceValue=lambda uid, tag: {"1.2": "MR", "1.3": "PT"}[uid])
    slicer.qMRMLNodeComboBox = Widget
    for name in ("", "Logic", "Test", "Widget"):
        setattr(scripted, f"ScriptedLoadableModule{name}", type(f"ScriptedLoadableModule{name}", (ModuleBase,), {}))
    slicer.ScriptedLoadableModule = scripted
    kinds = "ComboBox SpinBox DoubleSpinBox PushButton ProgressBar Label LineEdit PlainTextEdit FormLayout Timer"
    qt = SimpleNamespace(QSettings=Settings, **{f"Q{kind}": Widget for kind in kinds.split()})
    ctk = SimpleNamespace(ctkCollapsibleButton=Widget, ctkPathLineEdit=Widget)
    modules = {"slicer": slicer, "slicer.util": slicer.util, "slicer.ScriptedLoadableModule": scripted}
    for name, module in {**modules, "qt": qt, "ctk": ctk, "vtk": SimpleNamespace(vtkMatrix4x4=Matrix)}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(Settings, "kept", {})
    Path(slicer.app.temporaryPath).mkdir()
    return slicer
