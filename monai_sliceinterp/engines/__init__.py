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

"""Engines: trainers, the loop over scans, checkpoints, batches as networks take them."""

from __future__ import annotations

from monai_sliceinterp.engines.adaptation import AdaptNetworkd, adaptation_text, split_for_guard
from monai_sliceinterp.engines.adversarial import ConditionalGANTrainer, CriticTrainer
from monai_sliceinterp.engines.checkpoints import (
    AtomicCheckpointSaver,
    BestModelSaver,
    check_checkpoint,
    load_weights,
)
from monai_sliceinterp.engines.descriptions import check_description, describe_network
from monai_sliceinterp.engines.hrinet import AlternatingSupervisionTrainer
from monai_sliceinterp.engines.interpolation import interpolate_volumes
from monai_sliceinterp.engines.prepare import (
    PrepareConditionalPairs,
    PrepareSliceBlocks,
    PrepareSlicePairs,
    PrepareViewImages,
)
from monai_sliceinterp.engines.quantization import quantize
from monai_sliceinterp.engines.stages import check_start, check_validation
