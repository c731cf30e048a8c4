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

"""Networks that interpolate slices, and their critics."""

from __future__ import annotations

from monai_sliceinterp.networks.nets.ami import AnisotropicMetaInterpolation
from monai_sliceinterp.networks.nets.asi import ASIAutoencoder, ResidualASIAutoencoder
from monai_sliceinterp.networks.nets.critics import InterpolationCritic
from monai_sliceinterp.networks.nets.hrinet import HRINetAutoencoder
from monai_sliceinterp.networks.nets.latent import Codes, LatentInterpolator, mix_codes
from monai_sliceinterp.networks.nets.mdcsrn import MDCSRN
from monai_sliceinterp.networks.nets.mdsr import MDSR
from monai_sliceinterp.networks.nets.meta_sr import MetaSR
from monai_sliceinterp.networks.nets.mixture import MixtureNetwork
from monai_sliceinterp.networks.nets.rdn import RDN
from monai_sliceinterp.networks.nets.saint import SAINT, ResidualFusionNetwork
from monai_sliceinterp.networks.nets.super_resolution import SliceSuperResolution
from monai_sliceinterp.networks.nets.variational import (
    VariationalASIAutoencoder,
    VariationalHRINetAutoencoder,
    VariationalInterpolator,
    gaussian_divergence,
)
from monai_sliceinterp.networks.nets.volumetric_baselines import SRCNN3D, Pix2Pix3D
from monai_sliceinterp.networks.nets.vts import CONDITION_CHANNELS, VolumeTranslator, VTSDiscriminator, VTSGenerator
