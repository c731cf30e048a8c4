# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Every overlay on top of the paper's settings, and others that go together: two steps of each stage, and a volume.

Overlays one by one, by their commands, are in ``tests/bundles/test_training.py``.
"""

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor

from tests.bundles.bundle_commands import body, content, diagonal, overlays_of, parser_of, save

NO_NETWORK = {"evaluate", "multi_gpu_train", "paper", "ct", "mr", "ct_mr"}
PAPERS = {"asi": ["paper_brain"], "saint": [], "vts": [], "hrinet": []}
PAIRS = [
    (bundle, ("paper", name))
    for bundle, named in PAPERS.items()
    for name in dict.fromkeys([*named, *(name for name in overlays_of(bundle) if name not in NO_NETWORK)])
]
PAIRS += [("saint", ("small", "four_views")), ("saint", ("small", "rfn_3d")), ("hrinet", ("paper_512", "perceptual"))]
STAGES = {"asi": ["train"], "saint": ["train", "fusion"], "vts": ["train"], "hrinet": ["train", "refine"]}
TINY = {
    "network_def#ami#num_blocks": 1,
    "network_def#ami#num_layers": 1,
    "network_def#rfn#num_blocks": 1,
    "network_def#rfn#num_layers": 1,
    "channels": [2, 2, 2, 2],
    "latent_channels": 2,
    "network_def#latent_channels": 2,
    "patch_critic_channels": 2,
    "patch_size": 16,
    "num_slices": 4,
    "rfn_patch_size": 16,
    "rfn_num_slices": 3,
    "rfn_batch_size": 1,
    "min_remaining_slices": 0,
    "crops_per_volume": 2,
    "samples_per_volume": 2,
    "loss#synthesis": "mse",  # no pretrained network
    "num_workers": 0,
}
BATCH = {"vts": 2, "saint": 2, "asi": 2, "hrinet": 2}


def tiny(bundle, config, overlays):
    """Options for a tiny network and tiny samples, of those that the configs have."""
    parser = parser_of(bundle, config, *overlays)
    given = {key: value for key, value in TINY.items() if key in parser}
    given |= {"batch_size": BATCH[bundle]} if config == "train" else {}
    if bundle == "asi":
        given["network_def#channels"] = [2, 2]
    if bundle == "hrinet":  # one map or three
        levels = content(bundle, overlays[-1]).get("latent_channels", [1, 1, 1])
        given |= {"latent_channels": [2] * len(levels), "patch_size": 24}  # the least of D2
    else:
        given.pop("latent_channels", None)
    return {key.replace("#", "__"): value for key, value in given.items()}


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for seed, name in enumerate("abc"):
        save(folder / f"{name}.nii.gz", body((26, 24, 26), seed), diagonal(1.0, 1.0, 1.0))
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("bundle", "overlays"), PAIRS, ids=lambda value: value if isinstance(value, str) else "+".join(value)
)
def test_pairs_train_and_interpolate(bundle, overlays, scans, tmp_path):
    own = {"dataset_dir": str(scans), "output_dir": str(tmp_path), "validation_subjects": ["c"]}
    own |= tiny(bundle, "train", overlays)
    if "training_degradation" in content(bundle, "train"):  # 26 slices are few for one in six
        own |= {"training_degradation": []}
    parser = parser_of(bundle, "train", *overlays, **own)
    alone = len(content(bundle, overlays[-1]).get("stages", STAGES[bundle])) == 1
    for stage in STAGES[bundle][:1] if alone else STAGES[bundle]:
        trainer = parser.get_parsed_content(f"{stage}#trainer")
        before = [value.clone() for value in parser.get_parsed_content("network").parameters()]
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), trainer.terminate)
        trainer.run()
        assert trainer.state.iteration == 2
        output = trainer.state.output
        losses = [
            value for value in (output[0] if isinstance(output, list) else output).values() if torch.is_tensor(value)
        ]
        assert all(value.isfinite().all() for value in losses)
        after = list(parser.get_parsed_content("network").parameters())
        assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))
    inference = parser_of(
        bundle, "inference", *overlays, factor=2, progress=False, **tiny(bundle, "inference", overlays)
    )
    network = inference.get_parsed_content("network_def").eval()
    network.load_state_dict(parser.get_parsed_content("network_def").state_dict())
    affine = torch.from_numpy(np.diag([0.7, 0.8, 4.0, 1.0]))
    volume = inference.get_parsed_content("inferer")(MetaTensor(torch.rand(1, 1, 19, 22, 3), affine=affine), network)
    assert volume.shape == (1, 1, 19, 22, 5) and volume.isfinite().all() and volume.std() > 0


def test_every_overlay_is_tried():
    """Alone by its command, or in a pair."""
    from tests.bundles.bundle_cases import CASES

    for bundle, case in CASES.items():
        paired = {name for other, names in PAIRS if other == bundle for name in names}
        left = set(overlays_of(bundle)) - {"evaluate", "multi_gpu_train", "ct", *case.overlays}
        assert left <= paired | set(case.trained_overlays), bundle
