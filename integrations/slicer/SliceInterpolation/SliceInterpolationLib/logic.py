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

"""What the module does with Slicer's nodes; the panel calls it, and so may scripts."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from SliceInterpolationLib.command import METHODS, Settings, bundle_names, clean_environment, find_command
from SliceInterpolationLib.nodes import load_results, write_inputs
from SliceInterpolationLib.process import CommandProcess
from SliceInterpolationLib.run import Run

__all__ = ["SliceInterpolationLogic"]

_SECONDS = 60.0


class SliceInterpolationLogic(ScriptedLoadableModuleLogic):
    """What the module does; the panel calls it, and so may scripts.

    Example:
        logic = SliceInterpolationLogic()
        nodes = logic.interpolate(volume, Settings(method="cubic", factor=4))
    """

    def command(self, path: str = "") -> list[str]:
        """Find the command: at a path, or where it is looked for; ValueError says how to install it."""
        environment = slicer.util.startupEnvironment()
        return find_command(path, slicer.app.slicerHome, environment.get("PATH", ""))

    def ask(self, command: list[str], *arguments: str) -> str:
        """Return what the command prints that ends at once, such as ``--version``; RuntimeError where it fails."""
        home = slicer.app.slicerHome
        environment = clean_environment(slicer.util.startupEnvironment(), home)
        process = CommandProcess([*command, *arguments], environment, os.path.expanduser("~"))
        try:
            status = process.wait(_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{command[0]}: did not answer within {_SECONDS:g} s.") from error
        finally:
            process.kill()
        text = "\n".join(process.new_lines())
        if status != 0:
            raise RuntimeError(f"{command[0]}: {text.strip().splitlines()[-1] if text.strip() else 'failed'}")
        return text

    def methods(self, command: list[str]) -> list[str]:
        """Return the methods that the command has: those without a bundle, and its bundles."""
        return [*METHODS, *bundle_names(self.ask(command, "bundles"))]

    def start(self, command: list[str], volume: Any, settings: Settings, segmentation: Any = None) -> Run:
        """Write a volume node, and a segmentation node if there is one, and start the command on them."""
        return Run(
            command,
            settings,
            lambda scan, label: write_inputs(volume, segmentation, scan, label),
            slicer.util.startupEnvironment(),
            slicer.app.slicerHome,
            slicer.app.temporaryPath,
        )

    def finish(self, run: Run, volume: Any, segmentation: Any = None) -> dict[str, Any]:
        """Load the results of a run that has ended, and close it; no nodes where there was nothing to do."""
        try:
            files = run.results()
            return load_results(files, volume, segmentation) if files else {}
        finally:
            run.close()

    def interpolate(self, volume: Any, settings: Settings, segmentation: Any = None, path: str = "") -> dict[str, Any]:
        """Interpolate a volume node, wait for it, and return the new nodes; for scripts."""
        run = self.start(self.command(path), volume, settings, segmentation)
        return self.finish(run, volume, segmentation)
