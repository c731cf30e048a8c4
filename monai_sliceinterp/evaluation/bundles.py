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

"""Inference of a bundle in memory, so that what is scored is what its users get."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose

from monai_sliceinterp.checks import closest
from monai_sliceinterp.engines import load_weights
from monai_sliceinterp.transforms import LoadVolumed, RestoreVolumed

__all__ = ["INFERENCE", "BundlePipeline", "config_folder", "unpacked"]

T = TypeVar("T")

INFERENCE = "inference.json"
"""Name of the config that is run."""

_NO_OVERLAYS = (INFERENCE, "metadata.json", "train.json")


def config_folder(bundle: Path) -> Path | None:
    """Find the folder of a bundle's configs; None where it has none."""
    return next((folder for folder in (bundle, bundle / "configs") if (folder / INFERENCE).is_file()), None)


@contextmanager
def unpacked(path: str | Path) -> Iterator[Path]:
    """Unpack the zip file of a bundle, or of a folder that is one, and yield the bundle's temporary folder."""
    stem = Path(path).stem
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root).resolve() / stem  # a bundle at the top of the file is called like the file
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    if not (folder / member).resolve().is_relative_to(folder):
                        raise ValueError(f"{path}: its member {member!r} would be written outside; not unpacked.")
                archive.extractall(folder)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:  # damaged, or encrypted
            raise ValueError(f"{path}: cannot be unpacked ({error}); expected the zip file of a bundle.") from error
        bundles = [entry for entry in (folder, *sorted(folder.iterdir())) if config_folder(entry)]
        if not bundles:
            raise ValueError(f"{path}: contains no bundle; expected a folder with configs/{INFERENCE}.")
        yield bundles[0]


class BundlePipeline:
    """Inference of a bundle: its preprocessing but for the loading, its inferer and network, and the way back.

    Intensities come back in the units of the scan and are not rounded to the type in which it was stored.

    Args:
        bundle: folder of the bundle.
        overlays: names of configs beside the inference config, or config files, that are laid over it.
        ckpt: weights; the bundle's own where empty.
        device: where the network computes.

    Raises:
        ValueError: with one line, if a config or the weights are missing or unusable.
    """

    def __init__(
        self, bundle: str | Path, overlays: Sequence[str] = (), ckpt: str = "", device: torch.device | str = "cpu"
    ) -> None:
        self.bundle, self.device = Path(bundle), torch.device(device)
        configs = config_folder(self.bundle)
        if configs is None:
            raise ValueError(f"{bundle}: is not a bundle; expected a folder with {INFERENCE} or configs/{INFERENCE}.")
        parser = ConfigParser()
        files = [configs / INFERENCE, *(self._overlay(configs, name) for name in overlays)]
        self._tell(f"cannot read {', '.join(file.name for file in files)}", parser.read_config, files)
        content = json.dumps(parser.config, sort_keys=True, default=str)
        # spacing: null beside a factor; slices are last already; a bar of its own would break that of the evaluation
        fixed: dict[str, Any] = {"spacing": None, "axis": 2, "progress": False, "device": self.device}
        for key, value in {**fixed, "bundle_root": str(self.bundle), **({"ckpt": ckpt} if ckpt else {})}.items():
            parser[key] = value
        weights = Path(self._parsed(parser, "ckpt"))
        if not weights.is_file():
            raise ValueError(f"{bundle}: its weights {weights} are missing; train it, or give others: ckpt=FILE.")
        network = load_weights(self._parsed(parser, "network_def"), weights, self.device)
        self.network = self._parsed(parser, "network").eval()
        steps = self._parsed(parser, "preprocessing").transforms
        self.preprocessing = Compose([step for step in steps if not isinstance(step, LoadVolumed)])
        if len(self.preprocessing.transforms) == len(steps):
            raise ValueError(f"{bundle}: its preprocessing has no LoadVolumed; expected a bundle of this package.")
        # whatever else refers to the network gets this one, not a new one
        parser["network_def"], parser["network"] = network, self.network
        self.parser = parser
        about = configs / "metadata.json"
        metadata = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
        self.description = str(metadata.get("description", ""))
        state = content.encode() + weights.read_bytes() + self.device.type.encode()
        self.fingerprint = hashlib.sha256(state).hexdigest()

    @torch.no_grad()
    def __call__(self, thick: MetaTensor, factor: int) -> MetaTensor:
        """Interpolate ``thick`` ``(C, H, W, N)``, slices last, in the units of the scan."""
        self.parser["factor"] = factor
        inferer = self._parsed(self.parser, "inferer")
        image = thick.clone()
        image.meta.pop("stored_dtype", None)  # to which the way back would limit the intensities
        data = self._tell("", self.preprocessing, {"image": image})
        data["pred"] = inferer(data["image"][None].to(self.device), self.network)[0].cpu()
        return cast(MetaTensor, RestoreVolumed("pred", self.preprocessing)(data)["pred"])

    def _overlay(self, configs: Path, name: str) -> Path:
        beside = configs / f"{name}.json"
        for path in (beside, Path(name)):
            if path.is_file():
                return path
        known = sorted(path.stem for path in configs.glob("*.json") if path.name not in _NO_OVERLAYS)
        raise ValueError(
            f"{self.bundle}: has no config {name!r}; expected one of {', '.join(known)}, or a file"
            f"{closest(name, known) or '.'}"
        )

    def _parsed(self, parser: ConfigParser, key: str) -> Any:
        if key not in parser:
            raise ValueError(f"{self.bundle}: {INFERENCE} lacks {key!r}; expected a bundle of this package.")
        return self._tell(f"cannot make {key!r}", parser.get_parsed_content, key)

    def _tell(self, what: str, function: Callable[..., T], *args: Any) -> T:
        """Call a function; an error names the bundle that is at fault."""
        try:
            return function(*args)
        except Exception as error:  # a config is a program: anything can come of it
            lines = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
            raise ValueError(f"{self.bundle}: {what + ': ' if what else ''}{lines[0]}") from error
