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

"""Text that names a method: a classical one, or a bundle with overlays and weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from monai_sliceinterp.checks import closest

__all__ = ["CLASSICAL", "MethodText", "overlay_files", "parse_method"]

CLASSICAL = ("linear", "cubic", "lanczos", "motion")
"""Methods without a network."""

_NO_OVERLAYS = ("inference.json", "metadata.json", "train.json")


@dataclass(frozen=True)
class MethodText:
    """Text that names a method, in its parts, see :func:`parse_method`."""

    name: str
    source: str
    overlays: tuple[str, ...] = ()
    ckpt: str = ""


def parse_method(text: str) -> MethodText:
    """Read ``[NAME=]SOURCE[,OVERLAY ...][,config=FILE ...][,ckpt=FILE]``.

    Args:
        text: SOURCE is a classical method, the name of a bundle, a bundle's folder, or the zip file of one. OVERLAY is
            the name of a config beside the bundle's inference config, config=FILE any config file; ckpt=FILE other
            weights. Without NAME the method is called like its source and overlays.

    Raises:
        ValueError: if a part is empty or unknown.

    Example:
        >>> parse_method("tuned=vts,small,ckpt=runs/model.pt")
        MethodText(name='tuned', source='vts', overlays=('small',), ckpt='runs/model.pt')
        >>> parse_method("saint,small").name
        'saint_small'
    """
    first, *options = text.split(",")
    name, equals, source = first.partition("=")
    if not equals:
        name, source = "", first
    if not source or (equals and not name) or not all(options):
        raise ValueError(f"method {text!r} has an empty part; expected [NAME=]METHOD[,OVERLAY...][,ckpt=FILE].")
    overlays, ckpt = [], ""
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            overlays.append(option)
        elif key == "config" and value:
            overlays.append(value)
        elif key == "ckpt" and value and not ckpt:
            ckpt = value
        else:
            raise ValueError(
                f"method {text!r}: cannot read {option!r}; expected config=FILE, one ckpt=FILE, or a name."
            )
    if not name and source not in CLASSICAL and not source.lower().endswith(".zip"):
        name = joined(Path(source).resolve().name, overlays)
    return MethodText(name, source, tuple(overlays), ckpt)


def joined(name: str, overlays: Iterable[str]) -> str:
    """Name a bundle under overlays.

    Example:
        >>> joined("saint", ["small"])
        'saint_small'
    """
    return "_".join([name, *(Path(overlay).stem for overlay in overlays)])


def overlay_files(bundle: Path, configs: Path, overlays: Iterable[str]) -> list[Path]:
    """Find the config files that are laid over a bundle's inference config.

    Args:
        bundle: folder of the bundle, for messages.
        configs: folder of its configs.
        overlays: names of configs beside the inference config, or config files.

    Raises:
        ValueError: if there is no such config.
    """
    files = []
    for name in overlays:
        found = [path for path in (configs / f"{name}.json", Path(name)) if path.is_file()]
        if not found:
            known = sorted(path.stem for path in configs.glob("*.json") if path.name not in _NO_OVERLAYS)
            raise ValueError(
                f"{bundle}: has no config {name!r}; expected one of {', '.join(known)}, or a file"
                f"{closest(name, known) or '.'}"
            )
        files.append(found[0])
    return files
