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

from monai_sliceinterp.transforms.conditioning import (
    DegradationConditionD,
    DegradationConditiond,
    DegradationConditionDict,
    condition_vector,
)
from monai_sliceinterp.transforms.degradation import (
    Degradation,
    Degrader,
    DegraderD,
    Degraderd,
    DegraderDict,
    FWHMDownsample,
    FWHMDownsampleD,
    FWHMDownsampled,
    FWHMDownsampleDict,
    degrade,
)
from monai_sliceinterp.transforms.deshearing import DeshearD, Desheard, DeshearDict, deshear
from monai_sliceinterp.transforms.dicom import SaveDicomSeriesD, SaveDicomSeriesd, SaveDicomSeriesDict
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
    RandThinAxisLast,
    RandThinAxisLastD,
    RandThinAxisLastd,
    RandThinAxisLastDict,
    ThroughPlaneLast,
    ThroughPlaneLastD,
    ThroughPlaneLastd,
    ThroughPlaneLastDict,
    move_axis_last,
    reorient_like,
    thin_axes,
)
from monai_sliceinterp.transforms.provenance import (
    SaveProvenanceD,
    SaveProvenanced,
    SaveProvenanceDict,
    provenance_labels,
)
from monai_sliceinterp.transforms.quality import (
    LeaveOneOutQualityD,
    LeaveOneOutQualityd,
    LeaveOneOutQualityDict,
    leave_one_out_quality,
)
from monai_sliceinterp.transforms.random_degradation import (
    RandDegrader,
    RandDegraderD,
    RandDegraderd,
    RandDegraderDict,
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
    RandSliceGroups,
    RandSliceGroupsD,
    RandSliceGroupsd,
    RandSliceGroupsDict,
    RandSlicePairs,
    RandSlicePairsD,
    RandSlicePairsd,
    RandSlicePairsDict,
    slice_group,
)
from monai_sliceinterp.transforms.save_interpolated import SaveInterpolatedD, SaveInterpolatedd, SaveInterpolatedDict
from monai_sliceinterp.transforms.saving import SaveVolumeD, SaveVolumed, SaveVolumeDict, save_nifti
from monai_sliceinterp.transforms.slice_blocks import (
    RandSliceBlocks,
    RandSliceBlocksD,
    RandSliceBlocksd,
    RandSliceBlocksDict,
    slice_block,
)
