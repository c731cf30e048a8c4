# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

import json
import tempfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.networks.layers import GaussianFilter
from torch.nn import functional as F

from monai_sliceinterp.engines import load_weights
from monai_sliceinterp.evaluation import BASELINES
from monai_sliceinterp.evaluation.methods import (
    Method,
    MethodText,
    find_device,
    find_method,
    find_methods,
    parse_method,
)
from monai_sliceinterp.inferers import MotionSliceInferer, SplineSliceInferer
from monai_sliceinterp.interpolation.configs import adapted_method
from monai_sliceinterp.interpolation.pipeline import BundlePipeline
from monai_sliceinterp.networks.nets import ASIAutoencoder
from monai_sliceinterp.transforms import LoadVolume, cast_to, save_nifti

ROOT = Path(__file__).resolve().parents[2]


def make_thick(channels=1, spacing=(4.0, 4.0, 9.0), count=4, dtype=torch.float32):
    rng = np.random.default_rng(0)
    values = 800 * rng.random((channels, 24, 22, count)) - 100
    return MetaTensor(torch.from_numpy(values).to(dtype), affine=torch.diag(torch.tensor([*spacing, 1.0])))


@pytest.fixture
def thick():
    return make_thick()


def run_bundle(config, scan, folder, **settings):
    """What a user of a bundle gets: run its inference on a file."""
    parser = ConfigParser()
    parser.read_config(config)
    parser.read_meta(ROOT / "bundles" / "asi" / "metadata.json")
    parser["_meta_"]["weights"] = {}  # not those that are shipped
    given = {"input": str(scan), "output_dir": str(folder / "out"), "device": torch.device("cpu"), "progress": False}
    for key, value in {**given, **settings}.items():
        parser[key] = value
    parser.get_parsed_content("run")
    return np.asarray(nib.load(folder / "out" / f"{scan.name.removesuffix('.nii')}_interp.nii.gz").dataobj)


class TestText:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("linear", ("", "linear", (), "")),
            ("a=linear", ("a", "linear", (), "")),
            ("saint", ("saint", "saint", (), "")),
            ("vts,small", ("vts_small", "vts", ("small",), "")),
            ("runs/x/", ("x", "runs/x/", (), "")),
            ("runs/x,config=runs/o.json,b", ("x_o_b", "runs/x", ("runs/o.json", "b"), "")),
            ("mine=bundles/asi,ckpt=runs/m.pt,small", ("mine", "bundles/asi", ("small",), "runs/m.pt")),
            ("asi,ckpt=a=b.pt", ("asi", "asi", (), "a=b.pt")),
            ("down/asi_v1.zip", ("", "down/asi_v1.zip", (), "")),
        ],
    )
    def test_parts(self, text, expected):
        assert parse_method(text) == MethodText(*expected)

    @pytest.mark.parametrize("text", ["mine=mixture", "mine_adapt=mixture,adapt"])
    def test_adapted(self, text):
        """Once, whether it is named or asked for."""
        assert adapted_method(parse_method(text)) == MethodText("mine_adapt", "mixture", ("adapt",))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            *((text, "has an empty part; expected") for text in ("", "=asi", "a=", "asi,", "asi,,small", ",small")),
            ("asi,weights=a.pt", "cannot read 'weights=a.pt'; expected config=FILE"),
            ("asi,ckpt=", "cannot read 'ckpt='; expected config=FILE"),
            ("asi,config=", "cannot read 'config='; expected config=FILE"),
            ("asi,ckpt=a.pt,ckpt=b.pt", "cannot read 'ckpt=b.pt'; expected config=FILE"),
        ],
    )
    def test_misuse(self, text, message):
        with pytest.raises(ValueError, match=message):
            parse_method(text)

    @pytest.mark.parametrize(
        ("name", "point"),
        [("asi@0.25", ("asi", 0.25)), ("a@b@-1e-2", ("a@b", -0.01)), ("asi@", ("", 0)), ("a", ("", 0))],
    )
    def test_point_on_a_curve(self, name, point):
        method = find_method(f"{name}=linear")
        assert (method.name, method.series, method.number) == (name, *point)


class TestClassical:
    @pytest.mark.parametrize("factor", [2, 3])
    @pytest.mark.parametrize("mode", BASELINES)
    def test_is_the_inferer(self, thick, mode, factor):
        method = find_method(mode, "meta")  # splines are computed on the CPU wherever networks are
        result = method.interpolate(thick, factor)
        assert (method.name, method.device) == (mode, torch.device("cpu"))
        assert torch.equal(result.as_tensor(), SplineSliceInferer(factor=factor, mode=mode)(thick[None])[0].as_tensor())
        assert result.affine[2, 2] == 9.0 / factor

    def test_motion(self, thick):
        found = find_method("motion").interpolate(thick, 3)
        assert torch.equal(found.as_tensor(), MotionSliceInferer(3)(thick[None])[0].as_tensor())

    def test_blurred(self, thick):
        """Linear interpolation, whose synthesized slices alone are blurred, each by itself."""
        found, linear = (find_method(name).interpolate(thick, 3).numpy() for name in ("blurred", "linear"))
        expected = F.pad(torch.as_tensor(linear).movedim(-1, 0), (5, 5, 5, 5), mode="replicate")
        expected = GaussianFilter(2, 0.7, approx="sampled")(expected)[..., 5:-5, 5:-5].movedim(0, -1).numpy()
        expected[..., ::3] = linear[..., ::3]
        np.testing.assert_allclose(found, expected, atol=1e-3 * np.ptp(linear))

    def test_alias(self):
        methods = find_methods(["linear", "lin=linear"])
        assert [method.name for method in methods] == ["linear", "lin"]
        assert methods[0].fingerprint == methods[1].fingerprint != find_method("cubic").fingerprint

    @pytest.mark.parametrize("option", ["small", "ckpt=a.pt"])
    def test_takes_no_options(self, option):
        with pytest.raises(ValueError, match="linear takes neither configs nor weights"):
            find_method(f"linear,{option}")


class TestMethod:
    @pytest.mark.parametrize(
        ("count", "value", "message"),
        [
            (6, 0.0, r"made a volume of shape \(1, 24, 22, 6\); expected \(1, 24, 22, 7\)"),
            (8, 0.0, r"made a volume of shape \(1, 24, 22, 8\); expected .* 7\)"),
            (7, np.nan, "made NaN or infinite intensities"),
            (7, np.inf, "made NaN or infinite intensities"),
        ],
    )
    def test_unusable_result(self, thick, count, value, message):
        result = torch.zeros(1, 24, 22, count)
        result[0, 3, 4, 5] = value
        with pytest.raises(ValueError, match=f"mine: {message}"):
            Method("mine", "", torch.device("cpu"), lambda thick, factor: result).interpolate(thick, 2)

    def test_device(self):
        assert find_device("cpu") == torch.device("cpu")
        assert find_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
        with pytest.raises(ValueError, match="there is no device 'gpu' here; expected for instance cpu"):
            find_device("gpu")


class TestBundle:
    @pytest.mark.parametrize("channels", [1, 2])
    def test_what_users_get(self, tiny_bundle, tmp_path, channels):
        """The file that inference writes for a float scan; for int16, rounded."""
        thick = make_thick(channels)
        result = find_method(str(tiny_bundle)).interpolate(thick, 3)
        assert result.dtype == torch.float32 and result.affine[2, 2] == 3
        settings = {"factor": 3, "axis": 2, "bundle_root": str(tiny_bundle)}
        save_nifti(thick, tmp_path / "scan.nii")
        written = run_bundle(tiny_bundle / "inference.json", tmp_path / "scan.nii", tmp_path, **settings)
        np.testing.assert_array_equal(written if channels > 1 else written[..., None], result.movedim(0, -1).numpy())
        whole = cast_to(thick, torch.int16)
        save_nifti(whole, tmp_path / "int.nii")
        written = run_bundle(tiny_bundle / "inference.json", tmp_path / "int.nii", tmp_path, **settings)
        rounded = find_method(str(tiny_bundle)).interpolate(whole.float(), 3).round().movedim(0, -1).numpy()
        np.testing.assert_array_equal(written if channels > 1 else written[..., None], rounded)

    def test_weights_are_loaded_once(self, tiny_bundle, thick, monkeypatch):
        loads = []

        def load(*args, **given):
            loads.append(args)
            return load_weights(*args, **given)

        monkeypatch.setattr("monai_sliceinterp.interpolation.pipeline.load_weights", load)
        method = find_method(str(tiny_bundle))
        results = [method.interpolate(thick, factor) for factor in (2, 3, 2)]
        assert len(loads) == 1 and not method.run.network.training
        assert torch.equal(results[0].as_tensor(), results[2].as_tensor())

    def test_stored_type_does_not_limit(self, tiny_bundle, tmp_path):
        """A scan of unsigned integers, read by the package and computed on in floating point."""
        scan = cast_to(make_thick() / 4 + 30, torch.uint8)
        save_nifti(scan, tmp_path / "scan.nii")
        loaded = LoadVolume()(tmp_path / "scan.nii")
        assert loaded.meta["stored_dtype"] == "uint8"
        thick = loaded.float() - 300
        thick.meta["stored_dtype"] = "uint8"
        result = find_method(str(tiny_bundle)).interpolate(thick, 2)
        assert result[..., 1::2].min() < 0 and thick.meta["stored_dtype"] == "uint8"

    def test_input_is_not_changed(self, tiny_bundle):
        """Slices stay last, also where they are finer than the pixels."""
        thick = make_thick(spacing=(4.0, 3.0, 2.0))
        before, affine = thick.as_tensor().clone(), thick.affine.clone()
        result = find_method(str(tiny_bundle)).interpolate(thick, 2)
        assert result.shape == (1, 24, 22, 7) and torch.equal(result[..., ::2].as_tensor(), before)
        assert torch.equal(thick.as_tensor(), before) and torch.equal(thick.affine, affine)
        assert thick.applied_operations == []

    def test_one_network_everywhere(self, tiny_bundle, tmp_path):
        """An inferer that refers to the network gets the one with the weights."""
        overlay, parts = tmp_path / "seen.json", "{'seen': @network, 'own': @network_def}"
        inferer = f"$type('Seen', (monai_sliceinterp.inferers.LatentSliceInferer,), {parts})"
        overlay.write_text(json.dumps({"inferer": f"{inferer}(factor=@factor)"}))
        pipeline = BundlePipeline(MethodText("", "tiny", (str(overlay),)), tiny_bundle)
        pipeline(make_thick(), 2)
        made = pipeline.parser.get_parsed_content("inferer")
        assert made.seen is made.own is pipeline.network

    @pytest.mark.parametrize("amp", [True, "true", False])
    def test_amp(self, tiny_bundle, thick, tmp_path, amp):
        (tmp_path / "amp.json").write_text(json.dumps({"amp": amp}))
        (tmp_path / "plain.json").write_text(json.dumps({"amp": False}))
        plain = find_method(f"{tiny_bundle},config={tmp_path / 'plain.json'}").interpolate(thick, 2)
        result = find_method(f"{tiny_bundle},config={tmp_path / 'amp.json'}").interpolate(thick, 2)
        assert result.dtype == torch.float32
        assert torch.equal(result.as_tensor(), plain.as_tensor()) != bool(amp)


class TestWhereBundlesAre:
    def test_by_name(self, make_bundle, tmp_path, monkeypatch):
        """A bare name means the bundle in ./bundles, also where a folder here is called so."""
        make_bundle(tmp_path / "bundles" / "mine", seed=1)
        make_bundle(tmp_path / "mine", seed=2)
        monkeypatch.chdir(tmp_path)
        fingerprints = [find_method(text).fingerprint for text in ("mine", "bundles/mine", "./mine")]
        assert fingerprints[0] == fingerprints[1] != fingerprints[2]

    def test_configs_folder(self, make_bundle, tmp_path, thick):
        first = make_bundle(tmp_path / "a" / "tiny")
        second = make_bundle(tmp_path / "b" / "tiny", configs="configs")
        methods = [find_method(str(folder)) for folder in (first, second)]
        assert [method.name for method in methods] == ["tiny", "tiny"]
        results = [method.interpolate(thick, 2).as_tensor() for method in methods]
        assert torch.equal(*results)

    def test_overlays(self, tiny_bundle, make_bundle, tmp_path, thick, monkeypatch):
        """By name from beside the inference config first, by path from anywhere, the last one wins."""
        (tmp_path / "narrow").write_text("no config")
        monkeypatch.chdir(tmp_path)
        folder = make_bundle(tmp_path / "tiny", spacing=1.0)  # the factor comes before a spacing
        for name, percentiles in (("narrow", [20.0, 80.0]), ("wide", [0.0, 100.0])):
            (folder / f"{name}.json").write_text(json.dumps({"percentiles": percentiles}))
        texts = [f"{folder},narrow", f"{folder},config={folder}/narrow.json", f"{folder},wide,narrow"]
        results = [find_method(text).interpolate(thick, 2).as_tensor() for text in texts]
        assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
        assert not torch.equal(results[0], find_method(str(tiny_bundle)).interpolate(thick, 2).as_tensor())

    def test_fingerprint(self, make_bundle, tmp_path):
        folder = make_bundle(tmp_path / "a")
        same = make_bundle(tmp_path / "b")
        (folder / "o.json").write_text(json.dumps({"percentiles": [2.0, 98.0]}))
        weights = make_bundle(tmp_path / "c", seed=1) / "models" / "model.pt"
        texts = [str(folder), f"x={same}", f"{folder},o", f"{folder},ckpt={weights}"]
        first, second, overlaid, other = (find_method(text).fingerprint for text in texts)
        assert first == second and len({first, overlaid, other}) == 3


class TestZip:
    def pack(self, bundle, path, top="tiny"):
        with zipfile.ZipFile(path, "w") as archive:
            for file in bundle.rglob("*"):
                archive.write(file, Path(top) / file.relative_to(bundle))
        return path

    @pytest.mark.parametrize(("top", "name"), [("tiny", "tiny"), ("", "tiny_v0.1.0")])
    def test_downloaded(self, tiny_bundle, tmp_path, thick, monkeypatch, top, name):
        temporary = tmp_path / "tmp"
        temporary.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        method = find_method(str(self.pack(tiny_bundle, tmp_path / "tiny_v0.1.0.zip", top)))
        assert method.name == name and list(temporary.iterdir()) == []
        folder = find_method(str(tiny_bundle))
        assert method.fingerprint == folder.fingerprint
        packed = f"{tmp_path}/tiny_v0.1.0.zip,config={tiny_bundle}/inference.json"
        assert find_method(packed).name == f"{name}_inference" and find_method(f"mine={packed}").name == "mine"
        for factor in (2, 3):
            expected = folder.interpolate(thick, factor).as_tensor()
            assert torch.equal(method.interpolate(thick, factor).as_tensor(), expected)

    @pytest.mark.parametrize("member", ["../evil.txt", "tiny/../../evil.txt", "/evil.txt"])
    def test_members_outside_are_refused(self, tiny_bundle, tmp_path, monkeypatch, member):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
        (tmp_path / "tmp").mkdir()
        packed = self.pack(tiny_bundle, tmp_path / "evil.zip")
        with zipfile.ZipFile(packed, "a") as archive:
            archive.writestr(member, "here")
        with pytest.raises(ValueError, match=f"evil.zip: its member '{member}' would be written outside; not unpacked"):
            find_method(str(packed))
        assert not list(tmp_path.rglob("evil.txt")) and list((tmp_path / "tmp").iterdir()) == []


@pytest.fixture(scope="class")
def place(make_bundle, tmp_path_factory):
    """A folder with a bundle in ./bundles, and all that can be wrong with bundles beside it."""
    folder = tmp_path_factory.mktemp("place")
    tiny = make_bundle(folder / "bundles" / "tiny")
    for name in ("small", "train", "metadata"):
        (tiny / f"{name}.json").write_text("{}")
    (folder / "bundles" / "empty").mkdir()
    (make_bundle(folder / "new") / "models" / "model.pt").unlink()
    torch.save(ASIAutoencoder(channels=(3,), latent_channels=2).state_dict(), folder / "other.pt")
    steps = {"_target_": "Compose", "transforms": [{"_target_": "LoadImaged", "keys": "image"}]}
    (folder / "loading.json").write_text(json.dumps({"preprocessing": steps}))
    (folder / "broken.json").write_text("{")
    for key in ("network_def", "preprocessing", "ckpt", "axis"):
        config = json.loads((tiny / "inference.json").read_text())
        del config[key]
        without = make_bundle(folder / f"without_{key}")
        (without / "inference.json").write_text(json.dumps(config))
    (folder / "text.zip").write_text("no zip")
    with zipfile.ZipFile(folder / "readme.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with zipfile.ZipFile(folder / "damaged.zip", "w") as archive:
        archive.write(tiny / "inference.json", "tiny/inference.json")
    content = bytearray((folder / "damaged.zip").read_bytes())
    content[100:1000] = bytes(900)
    (folder / "damaged.zip").write_bytes(bytes(content))
    return folder


LOADING = {"_target_": "monai_sliceinterp.transforms.LoadVolumed", "keys": "image"}
FAILING = {"_target_": "Lambdad", "keys": "image", "func": "$lambda image: 1 / 0"}
BROKEN = {"_target_": "Compose", "transforms": [LOADING, FAILING]}
LACKING = "inference.json lacks '{}'; expected a bundle of this package"


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("tiney", r"./bundles, .*\(.*tiny.*\), or the folder or zip file of a bundle; did you mean 'tiny'\?$"),
            ("xyz", r"unknown method 'xyz': expected linear, cubic, .*, blurred, a bundle in .* of a bundle\.$"),
            ("bundles/empty", "is not a bundle; expected a folder with inference.json or configs/"),
            ("new", "new: its weights .*model.pt are missing; train it, or give others: ckpt=FILE"),
            ("tiny,ckpt=no.pt", "tiny: its weights no.pt are missing"),
            ("tiny,ckpt=other.pt", "other.pt: is not a checkpoint of ASIAutoencoder"),
            ("tiny,smal", "has no config 'smal'; expected one of small, or a file; did you mean"),
            ("tiny,config=broken.json", r"broken.json: cannot be read \(Expecting"),
            ("tiny,config=loading.json", "tiny: its preprocessing has no LoadVolumed"),
            *((f"without_{key}", LACKING.format(key)) for key in ("network_def", "preprocessing", "ckpt", "axis")),
            ("readme.zip", "readme.zip: contains no bundle; expected a folder with configs/inference.json"),
            ("damaged.zip", "damaged.zip: cannot be unpacked .* expected a whole zip file"),
            ("text.zip", "text.zip: is not a zip file"),
            *((f"{name}=linear", "cannot be the name of") for name in ("truth", "input", "a|b", "a/b", "a\nb")),
        ],
    )
    def test_text(self, place, monkeypatch, text, message):
        monkeypatch.chdir(place)
        with pytest.raises(ValueError, match=message):
            find_method(text)

    def test_no_bundles_here(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("monai_sliceinterp.bundles.finding.bundle_roots", lambda: [])
        with pytest.raises(ValueError, match=r"a bundle in ./bundles.*\(there is none\).*did you mean 'cubic'\?"):
            find_method("cubik")
        with pytest.raises(ValueError, match=r"is not a bundle; expected a folder with inference.json or configs/"):
            BundlePipeline(MethodText("", "tiny"), tmp_path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"inferer": "$1 / 0"}, "cannot make 'inferer': division by zero"),
            ({"keep_observed": "maybe"}, "cannot make 'inferer': keep_observed must be true or false, got 'maybe'"),
            ({"preprocessing": BROKEN}, "division by zero$"),
        ],
    )
    def test_wrong_setting(self, make_bundle, tmp_path, thick, change, message):
        with pytest.raises(ValueError, match=f"tiny: {message}"):
            find_method(str(make_bundle(tmp_path / "tiny", **change))).interpolate(thick, 2)

    def test_several(self):
        with pytest.raises(ValueError, match="two methods are called 'linear'; name them apart: NAME=linear"):
            find_methods(["linear", "cubic", "linear"])
        with pytest.raises(ValueError, match="no method is given"):
            find_methods([])
