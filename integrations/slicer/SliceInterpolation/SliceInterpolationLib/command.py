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

"""The command ``sliceinterp``: where it is, its environment, its arguments and what it prints."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "INSTALL",
    "METHODS",
    "Progress",
    "Settings",
    "bundle_names",
    "clean_environment",
    "command_arguments",
    "find_command",
    "install_line",
    "read_progress",
]

METHODS = ("auto", "cubic", "linear", "lanczos", "motion")
"""Methods that need no bundle."""

INSTALL = "https://github.com/OWNER/monai_sliceinterp"

_FOLDER = ".sliceinterp"
"""Folder of the virtual environment in the user's home, where it is looked for unasked."""

_PROGRAMS = ("bin/sliceinterp", "Scripts/sliceinterp.exe")

# of Slicer's launcher: Python's own, and what makes libraries load Slicer's Qt, ITK and VTK or its plugins
_REMOVED = re.compile(r"(PYTHON|Qt_|QT_|SLICER|Slicer_|ITK_AUTOLOAD_PATH$|VTK_|TCL|TK_|SSL_CERT_FILE$|__PYVENV)")
_SEARCHED = ("PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "DYLD_FRAMEWORK_PATH")


@dataclass(frozen=True)
class Settings:
    """What the user asks for.

    Attributes:
        method: "auto", a classical method, the name of a bundle, or its folder or zip file.
        factor: gaps for each gap; or
        spacing: slice spacing in mm; with neither, slices as close as the pixels.
        modality: "CT" or "MR"; empty: what the values say.
        device: "cpu" or "cuda"; empty: a GPU if there is one.

    Raises:
        ValueError: with one line, if a setting is wrong.
    """

    method: str = "auto"
    factor: int | None = None
    spacing: float | None = None
    modality: str = ""
    device: str = ""

    def __post_init__(self) -> None:
        if not self.method.strip():
            raise ValueError("no method is given; expected auto, cubic, saint, ...")
        if self.factor is not None and self.spacing is not None:
            raise ValueError(f"a factor ({self.factor}) and a spacing ({self.spacing:g} mm) are given; expected one.")
        if self.factor is not None and self.factor < 2:
            raise ValueError(f"the factor is {self.factor}; expected 2 or more.")
        if self.spacing is not None and not self.spacing > 0:
            raise ValueError(f"the spacing is {self.spacing:g} mm; expected a length above 0.")


@dataclass(frozen=True)
class Progress:
    """How far the command is.

    Attributes:
        stage: what it counts.
        done: how many are done.
        total: of how many.
    """

    stage: str
    done: int
    total: int


def install_line(windows: bool = sys.platform == "win32") -> str:
    """Return the command that installs ``sliceinterp`` where it is looked for, for a terminal outside of Slicer.

    Example:
        >>> install_line(windows=False)  # doctest: +ELLIPSIS
        'python3 -m venv ~/.sliceinterp && ~/.sliceinterp/bin/pip install "monai_sliceinterp @ git+https://...'
    """
    home = rf"%USERPROFILE%\{_FOLDER}" if windows else f"~/{_FOLDER}"
    python, pip = ("py", rf"{home}\Scripts\pip") if windows else ("python3", f"{home}/bin/pip")
    return f'{python} -m venv {home} && {pip} install "monai_sliceinterp @ git+{INSTALL}"'


def find_command(path: str = "", slicer_home: str = "", search: str = "") -> list[str]:
    """Find the command.

    Args:
        path: the program, the folder of a virtual environment, or its Python; empty: ``~/.sliceinterp``, else the
            program on the path.
        slicer_home: folder of Slicer, whose own Python is refused.
        search: folders to search in, as PATH has them.

    Returns:
        How to call it.

    Raises:
        ValueError: with one line that says how to install it, if it is not there.
    """
    if path:
        given = Path(path).expanduser()
        programs = [given] if given.is_file() else [given / name for name in _PROGRAMS]
    else:
        programs = [Path.home() / _FOLDER / name for name in _PROGRAMS]
        if found := shutil.which("sliceinterp", path=search):
            programs.append(Path(found))
    program = next((str(each) for each in programs if each.is_file()), None)
    if program is None:
        where = f"{path}: is neither the program sliceinterp nor a virtual environment that has it"
        line = where if path else "sliceinterp is not installed"
        raise ValueError(f"{line}; expected what this makes: {install_line()}")
    if slicer_home and _is_below(program, slicer_home):
        raise ValueError(f"{program}: belongs to Slicer, whose packages stay as they are; expected an own environment.")
    return [program, "-m", "monai_sliceinterp"] if Path(program).name.lower().startswith("python") else [program]


def _is_below(path: str, folder: str) -> bool:
    """Whether a path lies in a folder; links are not followed, as a virtual environment's Python is one."""
    first, second = (os.path.normcase(os.path.abspath(each)) for each in (path, folder))
    return first == second or first.startswith(second.rstrip(os.sep) + os.sep)


def clean_environment(environment: Mapping[str, str], slicer_home: str = "", folder: str = "") -> dict[str, str]:
    """Return an environment without Slicer: its Python, its libraries and its plugins.

    Args:
        environment: the environment of Slicer.
        slicer_home: folder of Slicer; what lies below it is taken out of the lists of folders.
        folder: folder for temporary files.

    Example:
        >>> home = os.path.abspath("Slicer")
        >>> given = {"PYTHONHOME": home, "LD_LIBRARY_PATH": os.path.join(home, "lib"), "LANG": "C"}
        >>> clean_environment(given, home)
        {'LANG': 'C', 'PYTHONUTF8': '1'}
    """
    clean = {}
    for name, value in environment.items():
        if name in _SEARCHED and slicer_home:
            kept = [each for each in value.split(os.pathsep) if each and not _is_below(each, slicer_home)]
            if not kept:
                continue
            value = os.pathsep.join(kept)
        if not _REMOVED.match(name):
            clean[name] = value
    clean["PYTHONUTF8"] = "1"  # so that what it prints is read as it was written
    if folder:
        clean.update(dict.fromkeys(("TMPDIR", "TEMP", "TMP"), folder))
    return clean


def command_arguments(settings: Settings, image: str, output: str, label: str = "") -> list[str]:
    """Return the arguments of the command.

    Args:
        settings: what the user asks for.
        image: file of the scan.
        output: folder for the results.
        label: file of a segmentation; empty: none.

    Example:
        >>> command_arguments(Settings("saint", spacing=1.0), "scan.nii", "out")
        ['scan.nii', '--output', 'out', '--method', 'saint', '--provenance', '--progress-lines', '--spacing', '1']
    """
    arguments = [image, "--output", output, "--method", settings.method.strip(), "--provenance", "--progress-lines"]
    options = {
        "--factor": settings.factor,
        "--spacing": None if settings.spacing is None else f"{settings.spacing:g}",
        "--modality": settings.modality,
        "--device": settings.device,
        "--label": label,
    }
    for name, value in options.items():
        if value:
            arguments += [name, str(value)]
    return arguments


def read_progress(line: str) -> Progress | None:
    """Read a line of progress; None for any other line.

    Example:
        >>> read_progress("progress: view of rows 3/40"), read_progress("method: cubic, as you say")
        (Progress(stage='view of rows', done=3, total=40), None)
    """
    match = re.fullmatch(r"progress: (.+) (\d+)/(\d+)", line.strip())
    return Progress(match[1], int(match[2]), int(match[3])) if match else None


def bundle_names(listing: str) -> list[str]:
    r"""Read the names of bundles from what ``sliceinterp bundles`` prints.

    Example:
        >>> bundle_names("asi        0.1.0   MR  /bundles/asi\n           Synthesizes slices\nLooked for in: /x\n")
        ['asi']
    """
    return re.findall(r"^(\w+) +\d+\.\d+\.\d+ ", listing, re.MULTILINE)
