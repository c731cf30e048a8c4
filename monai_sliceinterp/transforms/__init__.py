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

"""Transforms, array and dictionary versions, for any MONAI pipeline."""

from __future__ import annotations

from monai_sliceinterp.transforms.blocks import (
    RandSliceBlocks,
    RandSliceBlocksD,
    RandSliceBlocksd,
    RandSliceBlocksDict,
    slice_block,
)
from monai_sliceinterp.transforms.conditioning import (
    BODY_PARTS,
    DegradationConditionD,
    DegradationConditiond,
    DegradationConditionDict,
    condition_vector,
)
from monai_sliceinterp.transforms.degradation import (
    FWHMDownsample,
    FWHMDownsampleD,
    FWHMDownsampled,
    FWHMDownsampleDict,
    fwhm_downsample,
)
from monai_sliceinterp.transforms.degrader import Degradation, Degrader, RandDegrader, degrade
from monai_sliceinterp.transforms.degrader_dict import (
    DegraderD,
    Degraderd,
    DegraderDict,
    RandDegraderD,
    RandDegraderd,
    RandDegraderDict,
)
from monai_sliceinterp.transforms.dicom import SaveDicomSeriesD, SaveDicomSeriesd, SaveDicomSeriesDict
from monai_sliceinterp.transforms.groups import (
    RandSliceGroup,
    RandSliceGroupD,
    RandSliceGroupd,
    RandSliceGroupDict,
    RandSliceGroups,
    RandSliceGroupsD,
    RandSliceGroupsd,
    RandSliceGroupsDict,
    slice_group,
)
from monai_sliceinterp.transforms.intensity import (
    InvertibleScaleIntensityRange,
    InvertibleScaleIntensityRangeD,
    InvertibleScaleIntensityRanged,
    InvertibleScaleIntensityRangeDict,
    InvertibleScaleIntensityRangePercentiles,
    InvertibleScaleIntensityRangePercentilesD,
    InvertibleScaleIntensityRangePercentilesd,
    InvertibleScaleIntensityRangePercentilesDict,
    RandSigmoidContrast,
    RandSigmoidContrastD,
    RandSigmoidContrastd,
    RandSigmoidContrastDict,
    sigmoid_curve,
)
from monai_sliceinterp.transforms.label_interpolation import interpolate_labels
from monai_sliceinterp.transforms.labels import (
    InterpolateLabelD,
    InterpolateLabeld,
    InterpolateLabelDict,
    LoadLabelD,
    LoadLabeld,
    LoadLabelDict,
)
from monai_sliceinterp.transforms.loading import LoadVolume, LoadVolumeD, LoadVolumed, LoadVolumeDict, dicom_series
from monai_sliceinterp.transforms.missing import (
    FillMissingD,
    FillMissingd,
    FillMissingDict,
    fill_missing,
)
from monai_sliceinterp.transforms.orientation import (
    ThroughPlaneLast,
    ThroughPlaneLastD,
    ThroughPlaneLastd,
    ThroughPlaneLastDict,
    move_axis_last,
    moved_axis,
)
from monai_sliceinterp.transforms.provenance import (
    SaveProvenanceD,
    SaveProvenanced,
    SaveProvenanceDict,
    provenance_labels,
)
from monai_sliceinterp.transforms.restoring import (
    DisagreementMapD,
    DisagreementMapd,
    DisagreementMapDict,
    RestoreVolumeD,
    RestoreVolumed,
    RestoreVolumeDict,
    cast_to,
)
from monai_sliceinterp.transforms.sampling import (
    RandSlicePair,
    RandSlicePairD,
    RandSlicePaird,
    RandSlicePairDict,
    RandSlicePairs,
    RandSlicePairsD,
    RandSlicePairsd,
    RandSlicePairsDict,
    slice_pair,
)
from monai_sliceinterp.transforms.saving import SaveVolumeD, SaveVolumed, SaveVolumeDict, save_nifti
from monai_sliceinterp.transforms.slice_axis import (
    RandThinAxisLast,
    RandThinAxisLastD,
    RandThinAxisLastd,
    RandThinAxisLastDict,
    thin_axes,
)
