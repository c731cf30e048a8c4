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

"""Inference configs of bundles, and the one of classical methods, with values that are taken as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_sliceinterp.bundles import INFERENCE, MethodText, config_folder, overlay_files
from monai_sliceinterp.bundles.naming import joined
from monai_sliceinterp.command_line import INPUT_ERRORS, is_bug

__all__ = [
    "ADAPTABLE",
    "CLASSICAL_CONFIGS",
    "adapted_method",
    "classical_settings",
    "inference_files",
    "parsed",
    "read_inference",
    "set_values",
]

CLASSICAL_CONFIGS = Path(__file__).parent / "classical"
"""Folder with the inference config of classical methods, in the form of a bundle's."""

ADAPTABLE = "mixture"
"""The bundle whose network is adapted to a scan where no method is named."""

_ADAPT = "adapt"
_OVERLAYS = {"motion": ("motion",)}
_GIVEN = "given_values"


def adapted_method(method: MethodText) -> MethodText:
    """Lay the overlay that adapts the network to each scan over a method.

    Example:
        >>> adapted_method(MethodText("mixture", "mixture"))
        MethodText(name='mixture_adapt', source='mixture', overlays=('adapt',), ckpt='')
    """
    if _ADAPT in method.overlays:
        return method
    name = joined(method.name, [_ADAPT]) if method.name else ""
    return replace(method, name=name, overlays=(*method.overlays, _ADAPT))


def classical_settings(method: MethodText) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return what makes the classical config that of a method: its overlays and options.

    Args:
        method: the method, see :func:`monai_sliceinterp.bundles.parse_method`.

    Raises:
        ValueError: if overlays or weights are given.

    Example:
        >>> classical_settings(MethodText("", "motion")), classical_settings(MethodText("", "linear"))
        ((('motion',), {}), ((), {'mode': 'linear'}))
    """
    if method.overlays == (_ADAPT,):
        raise ValueError(f"method {method.source!r} has no network to adapt to a scan; expected {ADAPTABLE}.")
    if method.overlays or method.ckpt:
        raise ValueError(f"method {method.source!r} takes neither configs nor weights.")
    return (_OVERLAYS[method.source], {}) if method.source in _OVERLAYS else ((), {"mode": method.source})


def inference_files(bundle: Path, overlays: Sequence[str] = ()) -> list[Path]:
    """List the config files of a bundle: its inference config, and what is laid over it.

    Args:
        bundle: folder of the bundle.
        overlays: names of configs beside the inference config, or config files.

    Raises:
        ValueError: if it is no bundle, or an overlay is missing.

    Example:
        >>> [file.name for file in inference_files(CLASSICAL_CONFIGS, ["motion"])]
        ['inference.json', 'motion.json']
    """
    configs = config_folder(bundle)
    if configs is None:
        raise ValueError(f"{bundle}: is not a bundle; expected a folder with {INFERENCE} or configs/{INFERENCE}.")
    return [configs / INFERENCE, *overlay_files(bundle, configs, overlays)]


def read_inference(method: MethodText, bundle: Path | None, values: Mapping[str, Any]) -> ConfigParser:
    """Read the inference config of a method and set options in it.

    The config of a bundle is a program: read only those of bundles you trust.

    Args:
        method: the method.
        bundle: folder of the bundle; None for a classical method.
        values: values of options, taken as they are, see :func:`set_values`.

    Raises:
        ValueError: with one line, if a config is missing, is no config, or lacks an option.

    Example:
        >>> config = read_inference(MethodText("linear", "linear"), None, {"output_dir": "$out, @1", "factor": 2})
        >>> config.get_parsed_content("output_dir"), config.get_parsed_content("inferer").mode
        ('$out, @1', 'linear')
    """
    parser = ConfigParser()
    own: dict[str, Any] = {"method": method.name or method.source}
    if bundle is None:
        overlays, settings = classical_settings(method)
        files = inference_files(CLASSICAL_CONFIGS, overlays)
        own |= settings
    else:
        files = inference_files(bundle, method.overlays)
        own |= {"bundle_root": str(bundle), **({"ckpt": method.ckpt} if method.ckpt else {})}
    where = method.source if bundle is None else str(bundle)
    metadata = files[0].parent / "metadata.json"
    metadata_files = [metadata] if bundle is not None and metadata.is_file() else []
    for file in [*files, *metadata_files]:
        _check_json(file)
    parser.read_config(files)
    if metadata_files:
        parser.read_meta(metadata)
    set_values(parser, {**own, **values}, where)
    return parser


def _check_json(file: Path) -> None:
    """Check that a file is what a config has to be: JSON of one object."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        lines = str(error).splitlines()
        raise ValueError(f"{file}: cannot be read ({lines[0]}); expected a config in JSON.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds a {type(content).__name__}; expected a config, an object {{...}} of JSON.")


def parsed(parser: ConfigParser, key: str, where: str, deliberate: bool = False) -> Any:
    """Return the parsed content of a config; an error names the bundle that is at fault.

    Args:
        parser: the config.
        key: what is made of it.
        where: whose config it is.
        deliberate: hand on errors that are no mistake of the config, but tell of an input.

    Raises:
        ValueError: with one line, whatever the config leads to.

    Example:
        >>> parsed(ConfigParser({"inferer": "$1 / 0"}), "inferer", "bundles/mine")
        Traceback (most recent call last):
        ...
        ValueError: bundles/mine: cannot make 'inferer': division by zero
    """
    if key not in parser:
        raise ValueError(f"{where}: {INFERENCE} lacks {key!r}; expected a bundle of this package.")
    try:
        return parser.get_parsed_content(key)
    except Exception as error:  # a config is a program: anything can come of it
        if deliberate and isinstance(error, INPUT_ERRORS) and not is_bug(error):
            raise
        lines = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{where}: cannot make {key!r}: {lines[0]}") from error


def set_values(parser: ConfigParser, values: Mapping[str, Any], where: str = "the method") -> None:
    """Set options of a config to values that are taken as they are.

    MONAI takes a text for an expression, a reference or a macro where it begins with $, @ or %, and turns # into two
    colons. File names may have all of these: the config is told where the value lies instead of the value itself.

    Args:
        parser: the config.
        values: the values by the names of options.
        where: whose config it is, for the message.

    Raises:
        ValueError: if the config has no such option.

    Example:
        >>> parser = ConfigParser({"input": "", "data": ["@input"]})
        >>> set_values(parser, {"input": "Case #3, @home"})
        >>> parser.get_parsed_content("data")
        ['Case #3, @home']
    """
    given = parser.globals.setdefault(_GIVEN, [])
    for name, value in values.items():
        if name not in parser:
            raise ValueError(f"{where}: {INFERENCE} lacks {name!r}; expected a bundle of this package.")
        parser[name] = f"${_GIVEN}[{len(given)}]"
        given.append(value)
