# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Helpers of the tests of networks: random images, networks as after training, layers in plain torch."""

import pytest
import torch

from monai_sliceinterp.networks.blocks.normalization import BATCH_NORMALIZATION

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def rand(*shape, seed=0):
    """Intensities in float64, so that what is equal on paper is equal to ten digits."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def conv_count(sizes, taps):
    """Parameters of convolutions with biases, given their channels before and after."""
    return sum(taps * before * after + after for before, after in sizes)


def as_trained(network, seed=0, gain=1.0):
    """The network in float64 and evaluation mode, as after training: no bias, statistic or weight is trivial."""
    generator = torch.Generator().manual_seed(seed)
    network = network.double().eval()
    with torch.no_grad():
        for module in network.modules():
            for name, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                if not value.is_floating_point():
                    continue
                norm = isinstance(module, BATCH_NORMALIZATION)
                if norm and name in ("running_var", "weight"):
                    value.copy_(0.5 + torch.rand(value.shape, generator=generator, dtype=value.dtype))
                elif value.ndim < 2 or not value.any():
                    value.copy_(0.2 * gain * torch.randn(value.shape, generator=generator, dtype=value.dtype))
                else:
                    value.mul_(gain)
    return network


def trained(network_class, *args, seed=0, gain=1.0, **kwargs):
    """A network as after training, of random weights by a seed."""
    torch.manual_seed(seed)
    return as_trained(network_class(*args, **kwargs), seed, gain)


def normalized(x, state, name=""):
    """Batch normalization of volumes by the running statistics in a state dict."""
    keys = (name + key for key in ("running_mean", "running_var", "weight", "bias"))
    mean, var, weight, bias = (state[key][None, :, None, None, None] for key in keys)
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


def leaky(x, slope=0.2):
    return torch.where(x > 0, x, slope * x)


def padded_to(image, multiple):
    """Images padded at their far ends, pixel by pixel, to a multiple of a size."""
    for axis in range(2, image.ndim):
        size = image.shape[axis]
        image = image.index_select(axis, torch.arange(-(-size // multiple) * multiple).clamp(max=size - 1))
    return image


def keys_kernel(distance):
    """Keys' cubic convolution kernel with a = -0.5, which is Catmull-Rom."""
    a, x = -0.5, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def blend_by_hand(image, lower, alpha):
    """Mean of linear and cubic interpolation: for each position, a sum over all rows of the replicated image."""
    count, margin = image.shape[1], 3
    padded = torch.cat([image[:, :1]] * margin + [image] + [image[:, -1:]] * margin, dim=1)
    results = []
    for low, part in zip(lower.tolist(), alpha.tolist(), strict=True):
        value = 0
        for row in range(-margin, count + margin):
            away = low + part - row
            weight = 0.5 * max(0.0, 1 - abs(away)) + 0.5 * keys_kernel(away)
            value = value + weight * padded[:, row + margin]
        results.append(value)
    return torch.stack(results, dim=1)


def check_error(message, call, *args, **kwargs):
    """A ValueError of one line."""
    with pytest.raises(ValueError, match=message) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)
