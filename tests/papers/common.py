# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Configurations of the bundles with the papers' settings, to look at their parts."""

import warnings

from tests.bundles.bundle_commands import content, parser_of


def part_of(bundle, name, *overlays, **options):
    """A part of the configuration of a training."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parser_of(bundle, "train", *overlays, **options).get_parsed_content(name)


def merged(bundle, *overlays):
    """The settings of the paper, or of other overlays."""
    result = {}
    for name in ("train", *(overlays or ["paper"])):
        result |= content(bundle, name)
    return result


def kinds(steps):
    """Names of the classes of transforms."""
    return [type(step).__name__ for step in steps]
