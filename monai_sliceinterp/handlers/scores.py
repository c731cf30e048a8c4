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

"""Ignite metrics of interpolated volumes."""

from __future__ import annotations

from collections.abc import Callable

from monai.handlers import IgniteMetricHandler, from_engine
from monai.utils import CommonKeys

from monai_sliceinterp.metrics import SynthesizedSliceMetric

__all__ = ["SynthesizedSliceScore"]


class SynthesizedSliceScore(IgniteMetricHandler):
    """Mean score of the slices of interpolated volumes that were synthesized.

    Args:
        name: the score, such as "psnr", see :class:`monai_sliceinterp.metrics.SynthesizedSliceMetric`.
        factor: upsampling factor.
        include_observed: score observed slices too.
        output_transform: takes prediction and truth out of the engine's output, where they are not "pred" and "label".

    Example:
        >>> from ignite.engine import Engine
        >>> import torch
        >>> truth = 0.5 * torch.rand(1, 16, 16, 5)
        >>> engine = Engine(lambda engine, batch: [{"pred": truth + 0.1, "label": truth}])
        >>> SynthesizedSliceScore("psnr", factor=2).attach(engine, "psnr")
        >>> round(engine.run([0]).metrics["psnr"], 3)
        20.0
    """

    def __init__(
        self,
        name: str,
        factor: int,
        include_observed: bool = False,
        output_transform: Callable | None = None,
    ) -> None:
        metric = SynthesizedSliceMetric(name, factor, include_observed=include_observed)
        pair = output_transform or from_engine([CommonKeys.PRED, CommonKeys.LABEL])
        super().__init__(metric_fn=metric, output_transform=pair)
