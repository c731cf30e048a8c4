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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose

from monai_sliceinterp.bundles import MethodText, read_metadata
from monai_sliceinterp.command_line import one_line
from monai_sliceinterp.engines import load_weights
from monai_sliceinterp.interpolation.configs import parsed, read_inference
from monai_sliceinterp.transforms import LoadVolumed, RestoreVolumed

__all__ = ["BundlePipeline"]


class BundlePipeline:
    """Inference of a bundle: its preprocessing but for the loading, its inferer and network, and the way back.

    Intensities come back in the units of the scan and are not rounded to the type in which it was stored.

    Args:
        method: the method, with overlays and weights where others than the bundle's own are taken.
        bundle: folder of the bundle; None for a classical method.
        device: where the network computes.
        options: further options of the config. Without them the slices are last.

    Raises:
        ValueError: with one line, if a config or the weights are missing or unusable.
    """

    def __init__(
        self,
        method: MethodText,
        bundle: Path | None,
        device: torch.device | str = "cpu",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.source = method.source if bundle is None else str(bundle)
        # spacing: null beside a factor; slices are last already; a bar of its own would break that of the evaluation
        fixed: dict[str, Any] = {"spacing": None, "axis": 2, "progress": False, "device": self.device}
        parser = read_inference(method, bundle, {**fixed, **(options or {})})
        given = {*fixed, *(options or {}), "method", "bundle_root", "ckpt", ConfigParser.meta_key}
        content = {key: value for key, value in cast(dict[str, Any], parser.config).items() if key not in given}
        state = json.dumps(content, sort_keys=True, default=str).encode() + self.device.type.encode()
        if bundle is not None:
            weights = Path(self._parsed(parser, "ckpt"))
            if not weights.is_file():
                raise ValueError(f"{bundle}: its weights {weights} are missing; train it, or give others: ckpt=FILE.")
            shipped = parser.get(f"{ConfigParser.meta_key}::weights")
            engine = self._parsed(parser, "engine") if "engine" in parser else "torch"
            network = load_weights(self._parsed(parser, "network_def"), weights, self.device, shipped, engine=engine)
            state += weights.read_bytes()
        self.network = self._parsed(parser, "network").eval()
        steps = self._parsed(parser, "preprocessing").transforms
        self.preprocessing = Compose([step for step in steps if not isinstance(step, LoadVolumed)])
        if len(self.preprocessing.transforms) == len(steps):
            raise ValueError(f"{self.source}: its preprocessing has no LoadVolumed; expected a bundle of this package.")
        # whatever else refers to the network gets this one, not a new one
        parser["network"] = self.network
        if bundle is not None:
            parser["network_def"] = network
        self.parser = parser
        self.description = "" if bundle is None else str(read_metadata(bundle).get("description", ""))
        self.fingerprint = hashlib.sha256(state).hexdigest()

    def __call__(self, thick: MetaTensor, factor: int | None, spacing: float | None = None) -> MetaTensor:
        """Interpolate ``thick`` ``(C, X, Y, Z)`` in the units of the scan: a factor, a spacing in mm, or isotropic."""
        image = thick.clone()
        image.meta.pop("stored_dtype", None)  # to which the way back would limit the intensities
        return cast(MetaTensor, self.restored({"image": image}, factor, spacing)["pred"])

    def reconstruct(self, thick: MetaTensor) -> MetaTensor:
        """Compute the slices of ``thick`` ``(C, X, Y, Z)`` anew, none of them copied, in the units of the scan."""
        kept = self.parser["keep_observed"]
        self.parser["keep_observed"] = False
        try:
            return self(thick, 1)
        finally:
            self.parser["keep_observed"] = kept

    @torch.no_grad()
    def restored(self, data: dict[str, Any], factor: int | None, spacing: float | None = None) -> dict[Any, Any]:
        """Interpolate a dictionary's "image": "pred", beside what the preprocessing made of the other entries."""
        self.parser["factor"], self.parser["spacing"] = factor, spacing
        inferer = self._parsed(self.parser, "inferer")
        try:
            result = self.preprocessing(data)
        except Exception as error:  # of a scan, or of the transforms of a foreign config
            raise ValueError(f"{self.source}: {one_line(error)}") from error
        result["pred"] = inferer(result["image"][None].to(self.device), self.network)[0].cpu()
        return RestoreVolumed("pred", self.preprocessing)(result)

    def _parsed(self, parser: ConfigParser, key: str) -> Any:
        return parsed(parser, key, self.source)
