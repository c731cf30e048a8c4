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

"""Fair evaluation: degrade, interpolate, score, test, show."""

from __future__ import annotations

from monai_sliceinterp.evaluation.comparison import BASELINES, MethodComparison, compare
from monai_sliceinterp.evaluation.harness import Evaluation, run_evaluation
from monai_sliceinterp.evaluation.methods import Method, find_method, find_methods
from monai_sliceinterp.evaluation.protocols import degrade_by_protocol, make_protocols
from monai_sliceinterp.evaluation.scores import (
    METRICS,
    SMALLER_IS_BETTER,
    Score,
    format_scores,
    score_volume,
    write_rows,
    write_scores,
)
from monai_sliceinterp.evaluation.settings import EvaluationSettings
from monai_sliceinterp.evaluation.significance import (
    bootstrap_interval,
    holm_correction,
    paired_difference,
    signed_rank_p_value,
)
from monai_sliceinterp.evaluation.statistics import MethodSummary, MethodTest, summarize, test_methods
