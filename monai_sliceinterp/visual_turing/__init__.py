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

"""Visual Turing test: readers compare blinded stacks of true and interpolated slices, and their answers are scored."""

from __future__ import annotations

from monai_sliceinterp.visual_turing.page import write_study
from monai_sliceinterp.visual_turing.scores import read_answers, read_key, score_answers
from monai_sliceinterp.visual_turing.study import Question, Study, StudySettings, make_study
