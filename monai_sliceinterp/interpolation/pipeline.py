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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose

from monai_sliceinterp.bundles import INFERENCE, read_metadata
from monai_sliceinterp.engines import load_weights
from monai_sliceinterp.interpolation.configs import inference_files, set_values
from monai_sliceinterp.transforms import LoadVolumed, RestoreVolumed

__all__ = ["BundlePipeline"]

T = TypeVar("T")


class BundlePipeline:
    """Inference of a bundle: its preprocessing but for the loading, its inferer and network, and the way back.

    Intensities come back in the units of the scan and are not rounded to the type in which it was stored.

    Args:
        bundle: folder of the bundle.
        overlays: names of configs beside the inference config, or config files, that are laid over it.
        ckpt: weights; the bundle's own where empty.
        device: where the network computes.
        options: further options of the config. Without them the slices are last.

    Raises:
        ValueError: with one line, if a config or the weights are missing or unusable.
    """

    def __init__(
        self,
        bundle: str | Path,
        overlays: Sequence[str] = (),
        ckpt: str = "",
        device: torch.device | str = "cpu",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.bundle, self.device = Path(bundle), torch.device(device)
        files = inference_files(self.bundle, overlays)
        parser = ConfigParser()
        self._tell(f"cannot read {', '.join(file.name for file in files)}", parser.read_config, files)
        content = json.dumps(parser.config, sort_keys=True, default=str)
        # spacing: null beside a factor; slices are last already; a bar of its own would break that of the evaluation
        fixed: dict[str, Any] = {"spacing": None, "axis": 2, "progress": False, "device": self.device}
        if has_weights := "ckpt" in parser or "network_def" in parser:  # else it is a classical method
            fixed |= {"bundle_root": str(self.bundle), **({"ckpt": ckpt} if ckpt else {})}
        set_values(parser, {**fixed, **(options or {})})
        state = content.encode() + self.device.type.encode()
        if has_weights:
            weights = Path(self._parsed(parser, "ckpt"))
            if not weights.is_file():
                raise ValueError(f"{bundle}: its weights {weights} are missing; train it, or give others: ckpt=FILE.")
            engine = self._parsed(parser, "engine") if "engine" in parser else "torch"
            network = load_weights(self._parsed(parser, "network_def"), weights, self.device, engine=engine)
            state = content.encode() + weights.read_bytes() + self.device.type.encode()
        self.network = self._parsed(parser, "network").eval()
        steps = self._parsed(parser, "preprocessing").transforms
        self.preprocessing = Compose([step for step in steps if not isinstance(step, LoadVolumed)])
        if len(self.preprocessing.transforms) == len(steps):
            raise ValueError(f"{bundle}: its preprocessing has no LoadVolumed; expected a bundle of this package.")
        # whatever else refers to the network gets this one, not a new one
        parser["network"] = self.network
        if has_weights:
            parser["network_def"] = network
        self.parser = parser
        self.description = str(read_metadata(self.bundle).get("description", ""))
        self.fingerprint = hashlib.sha256(state).hexdigest()

    def __call__(self, thick: MetaTensor, factor: int | None, spacing: float | None = None) -> MetaTensor:
        """Interpolate ``thick`` ``(C, X, Y, Z)`` in the units of the scan: a factor, a spacing in mm, or isotropic."""
        image = thick.clone()
        image.meta.pop("stored_dtype", None)  # to which the way back would limit the intensities
        return cast(MetaTensor, self.restored({"image": image}, factor, spacing)["pred"])

    @torch.no_grad()
    def restored(self, data: dict[str, Any], factor: int | None, spacing: float | None = None) -> dict[Any, Any]:
        """Interpolate a dictionary's "image": "pred", beside what the preprocessing made of the other entries."""
        self.parser["factor"], self.parser["spacing"] = factor, spacing
        inferer = self._parsed(self.parser, "inferer")
        result = self._tell("", self.preprocessing, data)
        result["pred"] = inferer(result["image"][None].to(self.device), self.network)[0].cpu()
        return RestoreVolumed("pred", self.preprocessing)(result)

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
