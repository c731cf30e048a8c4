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

"""Module of 3D Slicer: thin slices from a scan with coarse ones, by the command ``sliceinterp`` in its own process."""

from __future__ import annotations

from typing import Any

import ctk
import numpy as np
import qt
import slicer
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

from SliceInterpolationLib.command import METHODS, Settings, install_line
from SliceInterpolationLib.logic import SliceInterpolationLogic
from SliceInterpolationLib.nodes import modality_of
from SliceInterpolationLib.run import Run

_SETTING = "SliceInterpolation/Command"
_POLL_MS = 200
_FINER = ("as fine as the pixels", "by a factor", "slice spacing in mm")
_MODALITIES = ("what the scan says", "CT", "MR")


class SliceInterpolation(ScriptedLoadableModule):
    """What Slicer lists of the module."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "Slice Interpolation"
        parent.categories = ["Filtering"]
        parent.dependencies = ["Segmentations", "Volumes"]
        parent.contributors = ["monai_sliceinterp contributors"]
        parent.helpText = (
            "Makes thin slices between the coarse slices of a CT or MR scan, and marks those that it made. It runs the "
            "command <b>sliceinterp</b> of monai_sliceinterp in a virtual environment of its own; Slicer's packages "
            "stay as they are. To install it, in a terminal outside of Slicer:<br><code>"
            f"{install_line()}</code><br>Research only: synthesized slices are estimates and must not be used for "
            "diagnosis."
        )
        parent.acknowledgementText = "Apache-2.0, by the contributors of monai_sliceinterp."


class SliceInterpolationWidget(ScriptedLoadableModuleWidget):
    """The panel."""

    def setup(self) -> None:
        """Make the panel."""
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = SliceInterpolationLogic()
        self.run: Run | None = None
        self.nodes: tuple[Any, Any] = (None, None)
        self._make_inputs(self._section("Scan"))
        self._make_parameters(self._section("Output"))
        self._make_command(self._section("Command"))
        self.applyButton = qt.QPushButton("Interpolate")
        self.cancelButton = qt.QPushButton("Cancel")
        self.progressBar = qt.QProgressBar()
        self.statusLabel = qt.QLabel("")
        self.statusLabel.wordWrap = True
        self.logView = qt.QPlainTextEdit()
        self.logView.readOnly = True
        for widget in (self.applyButton, self.cancelButton, self.progressBar, self.statusLabel, self.logView):
            self.layout.addWidget(widget)
        self.layout.addStretch(1)
        self.applyButton.clicked.connect(self.onApply)
        self.cancelButton.clicked.connect(self.onCancel)
        self.checkButton.clicked.connect(self.onCheck)
        self.finerBox.currentIndexChanged.connect(self.onFiner)
        self.timer = qt.QTimer()
        self.timer.interval = _POLL_MS
        self.timer.timeout.connect(self.onTimer)
        self.onFiner()
        self._show_running(False)

    def _section(self, title: str) -> Any:
        button = ctk.ctkCollapsibleButton()
        button.text = title
        self.layout.addWidget(button)
        return qt.QFormLayout(button)

    def _node_box(self, kind: str, required: bool) -> Any:
        box = slicer.qMRMLNodeComboBox()
        box.nodeTypes = [kind]
        box.showChildNodeTypes = False  # label volumes and colors are not interpolated as scans
        box.addEnabled = False
        box.removeEnabled = False
        box.noneEnabled = not required
        box.setMRMLScene(slicer.mrmlScene)
        return box

    def _make_inputs(self, form: Any) -> None:
        self.volumeBox = self._node_box("vtkMRMLScalarVolumeNode", required=True)
        self.segmentationBox = self._node_box("vtkMRMLSegmentationNode", required=False)
        self.segmentationBox.toolTip = "Brought onto the slices of the result; its segments must not overlap."
        self.modalityBox = qt.QComboBox()
        self.modalityBox.addItems(list(_MODALITIES))
        self.modalityBox.toolTip = "Chooses the method where that is auto; without DICOM it is guessed from the values."
        form.addRow("Volume:", self.volumeBox)
        form.addRow("Segmentation:", self.segmentationBox)
        form.addRow("Modality:", self.modalityBox)

    def _make_parameters(self, form: Any) -> None:
        self.methodBox = qt.QComboBox()
        self.methodBox.editable = True
        self.methodBox.addItems(list(METHODS))
        self.methodBox.toolTip = (
            "auto takes what scored best on scans of the kind; else a method or a bundle by its name."
        )
        self.finerBox = qt.QComboBox()
        self.finerBox.addItems(list(_FINER))
        self.factorBox = qt.QSpinBox()
        self.factorBox.minimum, self.factorBox.maximum, self.factorBox.value = 2, 50, 4
        self.spacingBox = qt.QDoubleSpinBox()
        self.spacingBox.decimals = 3
        self.spacingBox.minimum, self.spacingBox.maximum, self.spacingBox.value = 0.01, 100.0, 1.0
        self.spacingBox.suffix = " mm"
        form.addRow("Method:", self.methodBox)
        form.addRow("Slices:", self.finerBox)
        form.addRow("Factor:", self.factorBox)
        form.addRow("Spacing:", self.spacingBox)

    def _make_command(self, form: Any) -> None:
        self.commandEdit = ctk.ctkPathLineEdit()
        self.commandEdit.currentPath = qt.QSettings().value(_SETTING, "") or ""
        self.commandEdit.toolTip = "The program, or the virtual environment that has it; empty: ~/.sliceinterp"
        self.checkButton = qt.QPushButton("Check, and list its methods")
        self.installEdit = qt.QLineEdit(install_line())
        self.installEdit.readOnly = True
        self.installEdit.cursorPosition = 0  # so that it is shown from its beginning
        self.installEdit.toolTip = "In a terminal outside of Slicer. Slicer's own packages stay as they are."
        form.addRow("sliceinterp:", self.commandEdit)
        form.addRow("To install:", self.installEdit)
        form.addRow(self.checkButton)

    def settings(self) -> Settings:
        """Read what the panel asks for; ValueError if something is wrong."""
        index, modality = self.finerBox.currentIndex, self.modalityBox.currentIndex
        said = _MODALITIES[modality] if modality else modality_of(self.volumeBox.currentNode())
        return Settings(
            method=self.methodBox.currentText.strip(),
            factor=self.factorBox.value if index == 1 else None,
            spacing=self.spacingBox.value if index == 2 else None,
            modality=said,
        )

    def onFiner(self, *_: Any) -> None:
        """Show the number that the choice takes."""
        self.factorBox.enabled = self.finerBox.currentIndex == 1
        self.spacingBox.enabled = self.finerBox.currentIndex == 2

    def onCheck(self, *_: Any) -> None:
        """Look for the command, tell its version, and list its methods."""
        try:
            command = self.logic.command(self.commandEdit.currentPath)
            version, methods = self.logic.ask(command, "--version"), self.logic.methods(command)
        except (ValueError, RuntimeError, OSError) as error:
            self._say(str(error))
            return
        chosen = self.methodBox.currentText
        self.methodBox.clear()
        self.methodBox.addItems(methods)
        self.methodBox.currentText = chosen
        qt.QSettings().setValue(_SETTING, self.commandEdit.currentPath)
        self._say(f"{version.strip()}: {command[0]}")

    def onApply(self, *_: Any) -> None:
        """Start a run."""
        volume, segmentation = self.volumeBox.currentNode(), self.segmentationBox.currentNode()
        if self.run is not None or volume is None:
            self._say("a run is going on" if self.run is not None else "no volume is chosen; expected a scan.")
            return
        try:
            command = self.logic.command(self.commandEdit.currentPath)
            self.run = self.logic.start(command, volume, self.settings(), segmentation)
        except (ValueError, RuntimeError, OSError) as error:
            slicer.util.errorDisplay(str(error))
            self._say(str(error))
            return
        qt.QSettings().setValue(_SETTING, self.commandEdit.currentPath)
        self.nodes = volume, segmentation
        self.logView.plainText = ""
        self._show_running(True)
        self.timer.start()

    def onTimer(self) -> None:
        """Show how far the run is, and its results at its end."""
        run = self.run
        if run is None:
            return
        shown = len(run.lines)
        ended = run.poll()
        for line in run.lines[shown:]:
            self.logView.appendPlainText(line)
        if run.progress is not None:
            self.progressBar.maximum, self.progressBar.value = run.progress.total, run.progress.done
            self._say(f"{run.progress.stage}: {run.progress.done} of {run.progress.total}")
        else:
            self.progressBar.maximum = 0  # busy
            self._say(run.message() if run.lines else "starting")
        if ended:
            self._end(run)

    def _end(self, run: Run) -> None:
        self.timer.stop()
        self.run = None
        try:
            nodes = self.logic.finish(run, *self.nodes)
            self._say(f"{nodes['volume'].GetName()}: done" if nodes else run.message())
        except (ValueError, RuntimeError, OSError) as error:
            slicer.util.errorDisplay(str(error))
            self._say(str(error))
        finally:
            self.nodes = (None, None)
            self._show_running(False)

    def onCancel(self, *_: Any) -> None:
        """End the run, if there is one, and remove what it wrote."""
        if self.run is None:
            return
        self.timer.stop()
        run, self.run, self.nodes = self.run, None, (None, None)
        run.close()
        self._say("canceled: nothing was loaded")
        self._show_running(False)

    def cleanup(self) -> None:
        """End the run when the module or Slicer is closed."""
        self.onCancel()

    def _say(self, text: str) -> None:
        self.statusLabel.text = text

    def _show_running(self, running: bool) -> None:
        self.applyButton.enabled = not running
        self.cancelButton.enabled = running
        self.progressBar.visible = running
        self.progressBar.minimum, self.progressBar.maximum = 0, 0


class SliceInterpolationTest(ScriptedLoadableModuleTest):
    """Test within Slicer, with the command that is installed; without one it says so and ends."""

    def setUp(self) -> None:
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run the tests."""
        self.setUp()
        self.test_linear()

    def test_linear(self) -> None:
        """Five slices 4 mm apart become 17, with the observed ones as they were, and are marked."""
        logic = SliceInterpolationLogic()
        try:
            logic.command()
        except ValueError as error:
            self.delayDisplay(f"skipped: {error}")
            return
        values = np.random.default_rng(0).integers(0, 900, (5, 20, 24)).astype(np.int16)
        volume = slicer.util.addVolumeFromArray(values, np.diag([1.0, 1.0, 4.0, 1.0]), "scan")
        nodes = logic.interpolate(volume, Settings(method="linear", factor=4))
        found = slicer.util.arrayFromVolume(nodes["volume"])
        self.assertEqual(found.shape, (17, 20, 24))
        np.testing.assert_array_equal(found[::4], values)
        self.assertAlmostEqual(nodes["volume"].GetSpacing()[2], 1.0)
        marked = slicer.util.arrayFromSegmentBinaryLabelmap(nodes["synthesized"], "synthesized", nodes["volume"])
        self.assertEqual([bool(each.any()) for each in marked[:5]], [False, True, True, True, False])
        self.delayDisplay("passed")
