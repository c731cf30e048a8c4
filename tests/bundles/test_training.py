# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

"""Training and evaluation of every bundle with all its overlays, from the command line."""

import json
import re
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.bundles.bundle_cases import CASES, WRONG, Case, options
from tests.bundles.bundle_commands import (
    Command,
    Result,
    assert_identical,
    bundle_command,
    check_grid,
    check_scores,
    check_table,
    content,
    different_keys,
    events_of,
    files_of,
    filled,
    moments,
    names,
    parser_of,
    run,
    run_forked,
    save_scan,
    scores_of,
    state,
    statistics,
    table_rows,
)

FIRST = "checkpoint_epoch=1.pt"
SUBJECTS = {"training_subjects": "['torso_000','torso_000']"}
SUBJECTS |= {"validation_subjects": "['torso_001']", "test_subjects": "['torso_002']"}


@dataclass(frozen=True)
class Training:
    """A bundle, the folder of its runs, and how they ended."""

    bundle: str
    case: Case
    root: Path
    results: dict[str, Result]

    @property
    def done(self):
        """The folder of a training through all stages."""
        return self.root / "done"

    def checkpoint(self, run_name, stage, name="checkpoint.pt"):
        return state(self.root / run_name / self.case.stages[stage].folder / name)

    def columns(self, overlay=""):
        return ["linear", "cubic", "lanczos", self.case.methods.get(overlay, self.bundle)]


def train(bundle, output_dir, *overlays, **options):
    """Training of an epoch of each stage on small samples of small volumes."""
    return bundle_command(bundle, "train", overlays, {"output_dir": output_dir, **CASES[bundle].short, **options})


def quick(bundle, output_dir, *overlays, **options):
    """The same with a network that is quick."""
    given = {**CASES[bundle].narrow_network, **options}
    return train(bundle, output_dir, *CASES[bundle].overlays, *overlays, **given)


def quick_network(training):
    """The network of :func:`quick`."""
    parser = parser_of(training.bundle, "train", *training.case.overlays, **training.case.narrow_network)
    return parser.get_parsed_content("network_def")


@pytest.fixture(scope="session", params=CASES)
def training(request, thin_volumes, tmp_path_factory):
    """Two epochs of each stage, what continues them from somewhere, and what differs in seed or subjects."""
    bundle, case = request.param, CASES[request.param]
    root = tmp_path_factory.mktemp(bundle)
    two = {"dataset_dir": thin_volumes, **case.two_epochs}
    last = case.stages[-1].folder
    own = {key: value for key, value in SUBJECTS.items() if key in content(bundle, "train")}
    phantoms = {"phantoms__num_phantoms": 3, "phantoms__shape": "[32,32,25]", "phantoms__spacing": "[10,10,3]"}
    commands = {"done": quick(bundle, root / "done", **two)}
    for stage in case.stages:  # resumed after its first epoch
        stages = {"stages": f"['{stage.folder}']"} if stage is not case.stages[0] else {}
        name, ckpt = f"resumed_{stage.folder}", root / "done" / stage.folder / FIRST
        commands[name] = quick(bundle, root / name, ckpt=ckpt, **two, **stages)
    first = {"stages": f"['{case.stages[0].folder}']"} if len(case.stages) > 1 else {}
    told = str(content(bundle, "train")["amp"]).lower()  # what it is anyway
    commands["again"] = quick(bundle, root / "again", amp=told, **two, **first)
    commands["other_seed"] = quick(bundle, root / "other_seed", seed=5, **phantoms, **first)
    commands["subjects"] = quick(bundle, root / "subjects", dataset_dir=thin_volumes, amp="false", **own, **first)
    start = {"pretrained": root / "done" / case.stages[0].best}
    if len(case.stages) > 1:  # the last stage alone
        start["stages"] = f"['{last}']"
        commands["pretrained"] = quick(bundle, root / "pretrained", **two, **start)
    else:  # nothing is learned
        optimizer = "optimizer" if "optimizer" in content(bundle, "train") else "train__optimizer"
        still = {f"{optimizer}__lr": 0, **start}
        still |= {key: 0 for key in ("norm_warmup_epochs",) if key in content(bundle, "train")}
        commands["pretrained"] = quick(bundle, root / "pretrained", dataset_dir=thin_volumes, **still)
    if len(case.stages) > 1:  # else there is nothing to go on with
        ckpt = root / "done" / case.stages[0].folder / "checkpoint.pt"
        commands["finished"] = quick(bundle, root / "finished", ckpt=ckpt, **two)
    given = {"dataset_dir": thin_volumes, "ckpt": root / "done" / "model.pt"}
    given |= {} if bundle == "asi" else {"crop": 0}  # asi scores everything anyway
    commands["evaluate"] = quick(bundle, root / "evaluate", "evaluate", **given)
    return Training(bundle, case, root, run_forked(commands))


def test_training_writes_what_is_documented(training):
    training.results["done"].check_success()
    expected = {"model.pt", "scores.csv", "scores.md"}
    for stage in training.case.stages:
        prefix = "" if stage.folder == "." else f"{stage.folder}/"
        expected |= {stage.best, *(f"{prefix}checkpoint{end}.pt" for end in ("", "_epoch=1", "_epoch=2"))}
        best = state(training.done / stage.best)
        quick_network(training).load_state_dict(best, strict=True)
        assert_identical(best, state(training.done / prefix / "checkpoint.pt", stage.kept))
    assert files_of(training.done) == expected
    check = check_scores if training.case.body else check_table_alone
    check(training.done, training.results["done"], training.columns(), training.case.protocols)
    assert " dB over " in table_rows(training.results["done"].stdout)[1][-3]


def check_table_alone(folder, result, columns, protocols, count=1):
    """Of a bundle whose scans have no body to be told from the air."""
    check_table(result, columns, protocols, count)
    scores = scores_of(folder)
    assert [row["method"] for row in scores] == columns * len(protocols) * count
    assert all(float(row["psnr"]) > 0 for row in scores)


def test_tensorboard_has_every_loss(training):
    for stage in training.case.stages:
        scalars, images = events_of(training.done / stage.folder)
        counts = {name: len(values) / 2 for name, values in scalars.items() if not name.startswith("val_")}
        assert counts == stage.losses
        assert len(scalars["val_psnr"]) == len(scalars["val_ssim"]) == 1
        assert images and all(np.isfinite(values).all() for values in scalars.values())


@pytest.mark.parametrize("training", ["hrinet", "vts"], indirect=True)
def test_total_losses(training):
    """They are the sums of their parts, by the weights in the config."""
    settings = {"content_weight": 1.0, **content(training.bundle, "train")}
    for stage in training.case.stages:
        scalars = {name: np.array(values) for name, values in events_of(training.done / stage.folder)[0].items()}
        parts = {"constraint", "adversarial", "content", "reconstruction"} & scalars.keys()
        total = sum(settings[f"{name}_weight"] * scalars[name] for name in parts)
        alternating = "supervised" in scalars
        np.testing.assert_allclose(scalars["loss"][::2] if alternating else scalars["loss"], total, rtol=1e-4)
        if alternating:
            np.testing.assert_array_equal(scalars["loss"][1::2], scalars["supervised"])
        assert all((scalars[name] > 0).all() for name in stage.losses)


def test_every_network_is_trained(training):
    """In each of its stages, by its own optimizer and from the learning rate in the config."""
    settings = content(training.bundle, "train")
    for number, stage in enumerate(training.case.stages):
        middle, end = (training.checkpoint("done", number, name) for name in (FIRST, "checkpoint.pt"))
        assert {name for name in end if "optimizer" in name} == set(stage.networks.values())
        for name, optimizer in stage.networks.items():
            changed = set(different_keys(middle[name], end[name]))
            part = {key for key in end[name] if stage.folder not in ("ami", "rfn") or key.startswith(stage.folder)}
            fixed = {key for key in end[name] if "running_" in key or "num_batches" in key}
            assert part - fixed <= changed <= part, (stage.folder, name)
            (group,) = end[optimizer]["param_groups"]
            rates = {settings[key] for key in settings if key.endswith("learning_rate")}
            assert group.get("initial_lr", group["lr"]) in rates
            assert moments(end[optimizer])


@pytest.mark.parametrize("training", ["asi", "vts"], indirect=True)
def test_statistics_are_frozen_after_the_warmup(training):
    """Those of the network; a discriminator, which is not used afterwards, goes on with its batches."""
    middle, end = (training.checkpoint("done", 0, name) for name in (FIRST, "checkpoint.pt"))
    assert_identical(statistics(middle["network"]), statistics(end["network"]))
    counted = [value for key, value in statistics(middle["network"]).items() if "num_batches" in key]
    assert counted and all(value > 0 for value in counted)
    if "discriminator" in end:
        assert different_keys(statistics(middle["discriminator"]), statistics(end["discriminator"]))


def test_same_seed_gives_identical_weights(training):
    """Another seed does not; on a CPU, mixed precision changes nothing. The first stage alone is scored, too."""
    stage, expected = training.case.stages[0], training.checkpoint("done", 0)
    for name in ("again", "other_seed"):
        training.results[name].check_success()
        found = training.checkpoint(name, 0)
        for network in stage.networks:
            assert bool(different_keys(found[network], expected[network])) == (name == "other_seed")
    assert {path.split("/")[0] for path in files_of(training.root / "again") if "/" in path} <= {stage.folder}
    kind = content(training.bundle, "train")["phantoms"]["phantom_kinds"]
    phantoms = [f"{kind}_{seed:03d}.nii.gz" for seed in (5, 6, 7)]
    assert names(training.root / "other_seed" / "phantoms") == phantoms
    assert nib.load(training.root / "other_seed" / "phantoms" / phantoms[0]).shape == (32, 32, 25)
    assert not (training.root / "again" / "phantoms").exists()


RESUMED = [(name, stage.folder) for name, case in CASES.items() for stage in case.stages]


# without their scope, parameters beside a fixture's would have it set up for every test
@pytest.mark.parametrize(("training", "folder"), RESUMED, indirect=["training"], scope="session")
def test_resumed_training_ends_with_the_same_weights(training, folder):
    """Bit for bit: the networks, the optimizers' states, and the scores."""
    stages = [stage.folder for stage in training.case.stages]
    check_same_end(training, f"resumed_{folder}", stages.index(folder))


@pytest.mark.parametrize("training", ["saint", "hrinet"], indirect=True)
def test_finished_first_stage_resumed_in_another_folder(training):
    """Nothing is left to train there, so it goes on with the second stage."""
    check_same_end(training, "finished", 1)


def check_same_end(training, name, begin):
    training.results[name].check_success()
    for number, stage in enumerate(training.case.stages[begin:], begin):
        found, expected = (training.checkpoint(which, number) for which in (name, "done"))
        assert found.keys() == expected.keys()
        for network, optimizer in stage.networks.items():
            assert_identical(found[network], expected[network])
            assert found[optimizer]["param_groups"] == expected[optimizer]["param_groups"]
            assert_identical(moments(found[optimizer]), moments(expected[optimizer]))
        assert found[stage.best_model]["best_metric"] == expected[stage.best_model]["best_metric"]
    assert_identical(state(training.root / name / "model.pt"), state(training.done / "model.pt"))
    assert (training.root / name / "scores.csv").read_text() == (training.done / "scores.csv").read_text()
    assert table_rows(training.results[name].stdout) == table_rows(training.results["done"].stdout)


def test_pretrained_weights_are_the_start(training):
    """Of a stage that comes last, or of a training in which nothing is learned."""
    training.results["pretrained"].check_success()
    found, start = state(training.root / "pretrained" / "model.pt"), state(training.done / training.case.stages[0].best)
    if training.case.stages[0].kept == "averaged":  # the mean of equal weights, up to rounding
        assert found.keys() == start.keys()
        assert all(torch.allclose(value, start[key], atol=1e-6) for key, value in found.items())
    elif len(training.case.stages) == 1:
        assert_identical(found, start)
    elif training.bundle == "saint":  # nothing but the weights is handed over
        check_same_end(training, "pretrained", 1)
    else:
        checkpoint = training.checkpoint("pretrained", 1)
        assert_identical(checkpoint["feature_network"], start)
        assert set(different_keys(checkpoint["network"], start)) == start.keys()
    files = {path.split("/")[0] for path in files_of(training.root / "pretrained") if path.endswith(".pt")}
    assert files <= {training.case.stages[-1].folder, "model.pt", "checkpoint.pt", FIRST}


def test_evaluate(training):
    """It scores weights as the training does that made them, under its own protocols."""
    training.results["evaluate"].check_success()
    folder, case = training.root / "evaluate", training.case
    assert files_of(folder) == {"scores.csv", "scores.md"}
    columns = [*training.columns()[:-1], *(case.columns or training.columns()[-1:])]
    check = check_scores if case.body else check_table_alone
    check(folder, training.results["evaluate"], columns, case.evaluated)
    scores = [row for row in scores_of(folder) if row["protocol"] in case.protocols]
    for row in scores:  # of slices as they are reconstructed, which the end of a training does not tell
        again = {name: row.pop(name) for name in list(row) if name.endswith("_reconstruction")}
        told = again["psnr_reconstruction"] != "nan"
        assert told == (training.bundle == "asi" and row["method"] == "asi")
    assert [row for row in scores if row["method"] in training.columns()] == [
        {name: value for name, value in row.items() if not name.endswith("_reconstruction")}
        for row in scores_of(training.done)
    ]


def test_subjects(training, thin_volumes):
    """Scores are of the test subject; the training list has its subject as often as it is named."""
    training.results["subjects"].check_success()
    assert {row["volume"] for row in scores_of(training.root / "subjects")} == {"torso_002"}
    subjects = {key: eval(value) for key, value in SUBJECTS.items() if key in content(training.bundle, "train")}
    split = parser_of(training.bundle, "train", dataset_dir=str(thin_volumes), **subjects).get_parsed_content("split")
    found = {name: [Path(item["image"]).name[:9] for item in items] for name, items in split.items()}
    often = 2 if "training_subjects" in subjects else 1
    assert found == {"training": ["torso_000"] * often, "validation": ["torso_001"], "test": ["torso_002"]}


@pytest.mark.parametrize("training", ["hrinet"], indirect=True)
def test_second_stage_starts_from_the_best_of_the_first(training, tmp_path, thin_volumes):
    """The autoencoder from its best epoch, D1 from its last one; D2 and the encoder of the perceptual loss begin."""
    # validated after the second of three epochs; then nothing is learned by the autoencoder and D1
    given = {"dataset_dir": thin_volumes, "max_epochs": 3, "stage2_epochs": 2, "val_interval": 2}
    given |= {"refine__optimizer__lr": 0, "final_learning_rate": 0}
    given["refine__constraint_optimizer"] = "$torch.optim.Adam(@constraint_critic.parameters(), lr=0.0)"
    run_forked({"": quick("hrinet", tmp_path, **given)})[""].check_success()
    best, last = state(tmp_path / "stage1" / "model.pt"), state(tmp_path / "stage1" / "checkpoint.pt")
    assert_identical(best, state(tmp_path / "stage1" / "checkpoint_epoch=2.pt", "network"))
    assert different_keys(best, last["network"])
    end = state(tmp_path / "stage2" / "checkpoint.pt")
    for name in ("network", "feature_network"):
        assert_identical(end[name], best)
    assert_identical(end["constraint_critic"], last["constraint_critic"])
    # two unsupervised steps, in each of which D2 sees a batch to learn from and one to judge
    counted = [value for key, value in statistics(end["patch_critic"]).items() if "num_batches" in key]
    assert counted and all(value == 4 for value in counted)


def test_killed_training_resumes_to_the_same_result(training, thin_volumes, tmp_path):
    if training.bundle != "asi":
        pytest.skip("checkpoints of all bundles are written by the same handler")
    options = {"dataset_dir": thin_volumes, **training.case.two_epochs}
    process = quick(training.bundle, tmp_path, **options).start()
    try:
        while not (tmp_path / FIRST).exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "checkpoint.pt").exists()
    run(quick(training.bundle, tmp_path, ckpt=tmp_path / FIRST, **options)).check_success()
    assert_identical(state(tmp_path / "model.pt"), state(training.done / "model.pt"))
    assert (tmp_path / "scores.csv").read_text() == (training.done / "scores.csv").read_text()


@pytest.mark.parametrize(("training", "folder"), RESUMED, indirect=["training"])
def test_interrupted_training_resumes_to_the_same_result(training, folder, thin_volumes, tmp_path):
    """Ctrl-C in the second epoch of a stage; the line that it ends with is taken at its word."""
    items, number = (
        list(content(training.bundle, "train")["run"]),
        [stage.folder for stage in training.case.stages].index(folder),
    )
    index = [index for index, item in enumerate(items) if re.match(r"\$@\w+#trainer.run\(\)", item)][number]
    when = "ignite.engine.Events.ITERATION_COMPLETED(event_filter=lambda engine, _: engine.state.epoch == 2)"
    stop = f".add_event_handler({when}, lambda: os.kill(os.getpid(), {signal.SIGINT:d}))"
    items.insert(index, items[index].replace(".run()", stop))
    imports = [*content(training.bundle, "train")["imports"], "$import ignite"]
    (tmp_path / "stop.json").write_text(json.dumps({"imports": imports, "run": items}))
    given = {"dataset_dir": thin_volumes, **training.case.two_epochs}
    command = quick(training.bundle, tmp_path / "out", **given)
    configs = [command.config] if isinstance(command.config, str) else command.config
    result = run_forked({"": replace(command, config=[*configs, str(tmp_path / "stop.json")])})[""]
    line = result.stderr.splitlines()[-1]
    assert result.status == 130 and "Traceback" not in result.stdout + result.stderr, result.stderr[-3000:]
    told = re.search(r"interrupted: 1 whole epochs are saved; .* --ckpt (\S+)(?: --stages (\S+))? goes on", line)
    more = {"ckpt": told[1]} | ({"stages": told[2]} if told[2] else {})
    run_forked({"": quick(training.bundle, tmp_path / "out", **given, **more)})[""].check_success()
    assert_identical(state(tmp_path / "out" / "model.pt"), state(training.done / "model.pt"))
    assert (tmp_path / "out" / "scores.csv").read_text() == (training.done / "scores.csv").read_text()
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith((".", "tmp"))]


@pytest.fixture(scope="module", params=CASES)
def overlays(request, thin_volumes, tmp_path_factory):
    """A training with every overlay of its own, and what its weights then make of a scan."""
    bundle, case = request.param, CASES[request.param]
    root = tmp_path_factory.mktemp(f"{bundle}_overlays")
    scan = save_scan(root / "scan.nii.gz", (20, 22, 3))
    subjects = [f"{subject}_scan" for subject in content("asi", "mr")["test_subjects"][:2]]
    for seed, name in enumerate([*subjects, "ds000011_sub04", "own_1", "own_2", "own_3"]):
        folder = root / "mr" / ("below" if seed % 2 else ".")
        save_scan(folder / f"{name}.nii.gz", (32, 34, 9, 2)[: 4 if seed == 4 else 3], spacing=(1, 1, 1.2), seed=seed)
    commands = {}
    for name, own in case.trained_overlays.items():
        options = {"dataset_dir": thin_volumes, **filled({**case.short, **case.narrow, **own}, root=root)}
        commands[name] = train(bundle, root / name, name, **options)
        best = case.stages[0 if content(bundle, name).get("stages") == [case.stages[0].folder] else -1].best
        given = {"input": scan, "output_dir": root / f"infer_{name}", "ckpt": root / name / best, "factor": 4}
        given |= filled(case.inferred.get(name, {}))
        commands[f"infer_{name}"] = bundle_command(bundle, "inference", [name], given)
    return Training(bundle, case, root, run_forked(commands))


EVERY_OVERLAY = [(bundle, name) for bundle, case in CASES.items() for name in case.trained_overlays]


@pytest.mark.parametrize(("overlays", "name"), EVERY_OVERLAY, indirect=["overlays"], scope="module")
def test_overlays_train_and_interpolate(overlays, name):
    """The same overlay on ``inference.json`` runs what was trained."""
    overlays.results[name].check_success()
    overlays.results[f"infer_{name}"].check_success()
    assert not (overlays.root / name / "phantoms").exists()
    alone = content(overlays.bundle, name).get("stages") == [overlays.case.stages[0].folder]
    for number, stage in enumerate(overlays.case.stages):
        found = files_of(overlays.root / name / stage.folder)
        assert ("checkpoint.pt" in found) == (number == 0 or not alone)
    assert (overlays.root / name / "model.pt").is_file() == (not alone)
    values, affine = np.asarray(nib.load(overlays.root / "scan.nii.gz").dataobj), np.diag([1.0, 1.0, 4.0, 1.0])
    affine[:3, 3] = (-31.5, 12.25, 7.0)
    check_grid(overlays.root / f"infer_{name}" / "scan_interp.nii.gz", values, affine, 4, 2)
    result = overlays.results[name]
    if overlays.case.body:
        check_scores(overlays.root / name, result, overlays.columns(name), overlays.case.protocols)
    else:
        assert result.stdout.count("volumes of the ") == 1


@pytest.mark.parametrize("overlays", ["asi"], indirect=True)
def test_mr_uses_its_subjects(overlays):
    scores = scores_of(overlays.root / "mr")
    tested = content("asi", "mr")["test_subjects"][:2]
    assert {row["volume"] for row in scores} == {f"{subject}_scan" for subject in tested}
    assert {row["protocol"] for row in scores} == {"subsample x2", "subsample x4", "fwhm x3"}
    # a row for each folder
    assert [row[1] for row in table_rows(overlays.results["mr"].stdout)[1:]].count("fwhm x3") == 2


@pytest.mark.parametrize("overlays", ["hrinet"], indirect=True)
@pytest.mark.parametrize("name", CASES["hrinet"].trained_overlays)
def test_losses_and_critics_of_hrinets_overlays(overlays, name):
    """AE and VAE use neither critic, ACAI only D1."""
    first, second = overlays.case.stages
    expected = {"ae": {"loss", "content"}, "vae": {"loss", "content", "divergence"}}.get(name, set(first.losses))
    scalars, _ = events_of(overlays.root / name / "stage1")
    assert {key for key in scalars if not key.startswith("val_")} == expected
    checkpoint = state(overlays.root / name / "stage1" / "checkpoint.pt")
    assert bool(moments(checkpoint["constraint_optimizer"])) == (name not in ("ae", "vae"))
    assert "patch_critic" not in checkpoint
    if name == "vae":
        weight = content("hrinet", "vae")["divergence_weight"]
        content_loss, divergence, total = (np.array(scalars[key]) for key in ("content", "divergence", "loss"))
        np.testing.assert_allclose(total - content_loss, weight * divergence, rtol=0.02, atol=1.5e-7)
    if name not in ("ae", "acai", "vae"):
        scalars, _ = events_of(overlays.root / name / "stage2")
        unsupervised = name == "patchgan_only"
        assert set(second.losses) - set(scalars) == ({"supervised"} if unsupervised else set())
        assert len(scalars["content"]) == len(scalars["adversarial"]) == (2 if unsupervised else 1)
        end = state(overlays.root / name / "stage2" / "checkpoint.pt")
        assert moments(end["patch_optimizer"]) and moments(end["stage2_constraint_optimizer"])


@pytest.mark.parametrize("overlays", ["hrinet"], indirect=True)
def test_variants_of_hrinet_differ_in_the_second_stage(overlays):
    """Content loss and steps of the first stage are the same for all."""
    variants = ("mse", "perceptual", "patchgan_only")
    for name in variants[1:]:
        assert_identical(*(state(overlays.root / other / "stage1" / "model.pt") for other in ("mse", name)))
    ends = [state(overlays.root / name / "stage2" / "checkpoint.pt", "network") for name in variants]
    for k in range(3):
        assert different_keys(ends[k], ends[k - 1])


@pytest.mark.parametrize("overlays", [name for name, case in CASES.items() if case.rates], indirect=True)
def test_rates_of_the_paper(overlays):
    """Adam with its moments, at a constant rate."""
    found = {}
    for number in range(len(overlays.case.stages)):
        checkpoint = overlays.checkpoint("paper", number)
        for name in (key for key in checkpoint if "optimizer" in key):
            (group,) = checkpoint[name]["param_groups"]
            assert group["lr"] == group.get("initial_lr", group["lr"])
            found[name] = (group["lr"], tuple(group["betas"]))
    assert found == overlays.case.rates


def test_paper_without_lpips_says_what_to_install(thin_volumes, tmp_path):
    (tmp_path / "lpips.py").write_text("raise ImportError('No module named lpips')\n")
    command = train("asi", tmp_path / "out", "paper", "paper_brain", dataset_dir=thin_volumes)
    result = run(Command(command.config, command.options, environment={"PYTHONPATH": str(tmp_path)}))
    result.check_error("lpips", 'pip install "monai_sliceinterp[perceptual]"')
    assert not list(tmp_path.rglob("*.pt"))


EVERY_WRONG = [(bundle, text) for bundle, case in CASES.items() for text in {**WRONG, **case.wrong}]


@pytest.fixture(scope="session")
def wrong(training, thin_volumes, tmp_path_factory):
    bundle, case, root = training.bundle, training.case, tmp_path_factory.mktemp(f"{training.bundle}_wrong")
    (root / "file").write_text("a file")
    whole = nib.load(thin_volumes / "torso_000.nii.gz")
    for folder in ("tiny", "air"):
        (root / folder).mkdir()
        nib.save(whole, root / folder / "torso_000.nii.gz")
    nib.save(whole.slicer[:, :, 10:13], root / "tiny" / "torso_001.nii.gz")
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), -1000, np.int16), whole.affine), root / "air" / "air.nii.gz")
    (root / "nan").mkdir()
    for seed in range(3):
        nan = nib.Nifti1Image(np.full((32, 32, 25), np.nan, np.float32), whole.affine)
        nib.save(nan, root / "nan" / f"nan_{seed}.nii.gz")
    checkpoint = torch.load(training.done / training.case.stages[0].folder / "checkpoint.pt", weights_only=True)
    checkpoint.pop("discriminator", None)
    torch.save(checkpoint, root / "no_discriminator.pt")
    commands = {}
    for number, text in enumerate({**WRONG, **case.wrong}):
        given = {"dataset_dir": thin_volumes, **filled(options(text), root=root, done=training.done)}
        commands[text] = quick(bundle, Path(str(given.pop("output_dir", root / f"{number}"))), **given)
    return Training(bundle, case, root, run_forked(commands))


@pytest.mark.parametrize(("training", "text"), EVERY_WRONG, indirect=["training"], scope="session")
def test_wrong_commands(training, text, wrong):
    message = {**WRONG, **training.case.wrong}[text].format(root=wrong.root, done=training.done)
    wrong.results[text].check_error(*message.split(" ... "))
    # a checkpoint that cannot be gone on with has brought the best weights so far
    number = list(wrong.results).index(text)
    assert not list((wrong.root / f"{number}").rglob("model.pt")) or text == "--ckpt {done}/checkpoint.pt"
