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

"""Base of metrics whose mean leaves out items without a score."""

from __future__ import annotations

from monai.metrics import CumulativeIterationMetric
from torch import Tensor

__all__ = ["MeanScoreMetric"]


class MeanScoreMetric(CumulativeIterationMetric):
    """Base of metrics that average scores over the items that have one; NaN stands for none.

    MONAI's ``do_metric_reduction`` makes the mean of no scores 0, which could be one.

    Example:
        >>> import torch
        >>> class Inverse(MeanScoreMetric):
        ...     def _compute_tensor(self, y_pred, y=None):
        ...         return torch.where(y_pred == 0, torch.nan, 1 / y_pred)
        >>> metric = Inverse()
        >>> _ = metric(torch.tensor([[2.0], [0.0], [4.0]]))
        >>> metric.aggregate()
        tensor(0.3750)
    """

    def aggregate(self) -> Tensor:
        """Return the mean over the items seen since the last reset, a scalar; NaN if none of them has a score.

        Raises:
            ValueError: if there was no item.
        """
        return self.scores().nanmean()

    def scores(self) -> Tensor:
        """Return the scores seen since the last reset, in a row for each item.

        Raises:
            ValueError: if there was no item.
        """
        data = self.get_buffer()
        if not isinstance(data, Tensor):
            raise ValueError("nothing has been scored yet.")
        return data
