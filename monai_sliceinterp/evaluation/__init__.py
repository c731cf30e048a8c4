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

"""Evaluation of methods: degrade, interpolate, score, test, report."""

from __future__ import annotations

from monai_sliceinterp.evaluation.comparison import BASELINES, MethodComparison, compare, format_scores
from monai_sliceinterp.evaluation.harness import Evaluation, run_evaluation
from monai_sliceinterp.evaluation.methods import Method, find_method, find_methods
from monai_sliceinterp.evaluation.protocols import make_protocols, read_protocols
from monai_sliceinterp.evaluation.settings import EvaluationSettings
from monai_sliceinterp.evaluation.statistics import (
    bootstrap_interval,
    compare_methods,
    holm_correction,
    paired_difference,
    score_table,
    signed_rank_p_value,
    summarize,
    write_table,
)
