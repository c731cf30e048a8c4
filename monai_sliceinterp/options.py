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

"""Options of a bundle's configs on the command line: read, checked against what there is, and listed."""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import inspect
import json
import pydoc
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import monai.bundle
from monai.bundle import ComponentLocator, ConfigComponent, ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver

__all__ = ["check_options", "check_paths", "options_of", "options_text"]

_PATH_OPTIONS = ("input", "dataset_dir", "output_dir", "label", "ckpt")
"""Options whose values are paths."""

_COMPONENT_KEYS = ("_target_", "_disabled_", "_requires_", "_desc_", "_mode_")
"""Keys of a component that are not arguments."""


def options_of(arguments: Sequence[str]) -> dict[str, Any]:
    """Read the options of ``python -m monai.bundle run`` as Fire does, and those of an ``args_file``.

    Returns:
        The names of the options; "config_file" with its value.

    Example:
        >>> options_of(["run", "--config_file", "['a.json', 'b.json']", "--factor=4", "--noamp"])
        {'config_file': ['a.json', 'b.json'], 'factor': '4', 'noamp': 'True'}
    """
    options: dict[str, Any] = {}
    words = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    for word, after in zip(words, [*words[1:], "--"], strict=True):
        if _is_flag(word):
            name, equals, value = word.lstrip("-").partition("=")
            options[name.replace("-", "_")] = value if equals else "True" if _is_flag(after) else after
    if file := options.get("args_file"):
        options = ConfigParser.load_config_file(file) | options
    with contextlib.suppress(KeyError, ValueError, SyntaxError):  # none, or a plain name
        options["config_file"] = ast.literal_eval(options["config_file"])
    return options


def _is_flag(word: str) -> bool:
    return re.match(r"--|-[a-zA-Z]", word) is not None


def check_options(options: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Check that options of ``python -m monai.bundle run`` are keys of the configs, or arguments of MONAI.

    Args:
        options: the options. ``a#b`` is what is called ``b`` below ``a``.
        config: the content of the config files.

    Raises:
        ValueError: with one line that names the closest option, if there is no such key.

    Example:
        >>> check_options({"factor": 4}, {"factor": None})
        >>> check_options({"facter": 4}, {"factor": None})
        Traceback (most recent call last):
        ...
        ValueError: unknown option --facter; did you mean --factor? (--help lists the options)
    """
    functions = (monai.bundle.run, monai.bundle.run_workflow, monai.bundle.ConfigWorkflow)
    known = set().union(*(inspect.signature(function).parameters for function in functions))
    known |= {*config, *_references(config), ConfigParser.meta_key}
    for name in options:
        root, *path = re.split("#|::", name)
        if root not in known and not (root.startswith("no") and root[2:] in known and not path):
            raise ValueError(_unknown(name, root, known))
        parent: Any = config.get(root)
        for key in path:
            if isinstance(parent, Mapping):
                names = _arguments(parent)
                if names is not None and key not in names:
                    raise ValueError(_unknown(name, key, names))
                parent = parent.get(key)
            else:
                parent = parent[int(key)] if isinstance(parent, list) and key.isdigit() else None


def check_paths(options: Mapping[str, Any]) -> None:
    """Check that no path among the options begins like an expression of MONAI's configs.

    Raises:
        ValueError: if one does, and there is such a file, with the way to write it.

    Example:
        >>> check_paths({"input": "scans/a.nii.gz"})
    """
    for name in _PATH_OPTIONS:
        value = str(options.get(name, ""))
        if value.startswith(("$", "@", "%")) and Path(value).exists():
            raise ValueError(
                f"--{name} {value}: a name that begins with {value[0]} is taken for an expression; expected it as "
                f"./{value}, or in a text file (.txt) with one path on every line."
            )


def _unknown(name: str, key: str, known: Iterable[str]) -> str:
    """Return the message on an option of which ``key`` is unknown, with the known one that is most like it."""
    near = difflib.get_close_matches(key, sorted(known), n=1)
    hint = f"; did you mean --{name.replace(key, near[0])}?" if near else ""
    return f"unknown option --{name}{hint} (--help lists the options)"


def _references(value: Any) -> set[str]:
    """Return the root keys that ``@key`` reads somewhere in a config."""
    if isinstance(value, Mapping | list):
        items = value.values() if isinstance(value, Mapping) else value
        return set().union(*map(_references, items))
    references = ReferenceResolver.match_refs_pattern(value) if isinstance(value, str) else ()
    return {reference.split("::")[0] for reference in references}


@functools.cache
def _locator() -> ComponentLocator:
    """Return MONAI's list of components, which takes a tenth of a second to make."""
    return ComponentLocator()


def _arguments(parent: Mapping[str, Any]) -> set[str] | None:
    """Return the keys that a part of a config may have; None if that is not known."""
    if not ConfigComponent.is_instantiable(parent):
        return set(parent)
    component = ConfigComponent(dict(parent), id="", locator=_locator()).resolve_module_name()
    target = pydoc.locate(component) if isinstance(component, str) else component
    if not callable(target):
        return None
    parameters = inspect.signature(target).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return {*parameters, *parent, *_COMPONENT_KEYS}


def options_text(options: Mapping[str, str], config: Mapping[str, Any]) -> str:
    """Format the options of a config, one line each, with the values they have.

    Example:
        >>> print(options_text({"factor": "upsampling factor", "axis": "axis of the slices"}, {"factor": 2}))
        Options, each as --name value:
          factor  upsampling factor (2)
          axis    axis of the slices
        Everything else in the config can be set too: --a#b VALUE sets what is called b below a.
    """
    width = max(map(len, options), default=0)
    lines = ["Options, each as --name value:"]
    for name, text in options.items():
        value = config.get(name)
        shown = value not in (None, "") and not isinstance(value, Mapping) and not str(value).startswith(("$", "@"))
        lines.append(f"  {name:{width}}  {text}{f' ({json.dumps(value)})' if shown else ''}")
    lines.append("Everything else in the config can be set too: --a#b VALUE sets what is called b below a.")
    return "\n".join(lines)
