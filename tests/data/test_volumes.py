# Copyright (c) monai_sliceinterp contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_sliceinterp.data import (
    BODY_PARTS,
    find_volumes,
    split_volumes,
    subjects_of,
    training_volumes,
    volumes_per_batch,
    with_body_parts,
)
from monai_sliceinterp.data.volumes import RESULT_ENDINGS
from tests.dicom_series import write_series
from tests.transforms.volumes import check_error


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return [str(folder / name) for name in names]


def write_dicom(folder):
    """A small DICOM series, one file a slice."""
    write_series(folder, np.zeros((6, 7, 3)), np.diag([1, 1, 4, 1.0]))


class TestFindVolumes:
    def test_files_and_folders(self, tmp_path):
        touch(tmp_path, "b.nii", "a.NII.GZ", "c.mha", "d.mhd", "d.raw", "e.nrrd", "f.nhdr", "notes.txt", "g.png")
        touch(tmp_path, ".b_interp.part-x1.nii.gz", "below/z.nii")
        (tmp_path / "folder.nii").mkdir()
        expected = [str(tmp_path / n) for n in ("a.NII.GZ", "b.nii", "c.mha", "d.mhd", "e.nrrd", "f.nhdr")]
        assert find_volumes(tmp_path) == expected
        assert find_volumes(expected[0]) == find_volumes(Path(expected[0])) == expected[:1]

    @pytest.mark.parametrize(("typed", "value"), [("1001", 1001), ("1e5", 1e5), ("1,2", (1, 2)), ("a,b", ("a", "b"))])
    def test_names_taken_for_something_else(self, tmp_path, monkeypatch, typed, value):
        monkeypatch.chdir(tmp_path)
        touch(tmp_path, typed)
        monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", "--input", typed])
        assert find_volumes(value) == [typed]

    def test_results_are_no_scans(self, tmp_path):
        """In the folder that they are written to, those of its scans and of its DICOM series."""
        scans = touch(tmp_path, "a.nii.gz", "a_interp_2.nii.gz", "b.nrrd", "other_interp.nii.gz")
        results = touch(tmp_path, *(f"a{ending}.nii.gz" for ending in RESULT_ENDINGS), "b_interp.nrrd")
        (tmp_path / "list.txt").write_text(str(tmp_path))
        for source in (tmp_path, str(tmp_path / "b" / ".."), [tmp_path], tmp_path / "list.txt"):
            (tmp_path / "b").mkdir(exist_ok=True)
            found = find_volumes(source, output_dir=str(tmp_path))
            assert [Path(path).name for path in found] == sorted(Path(path).name for path in scans)
        assert len(find_volumes(tmp_path, output_dir=tmp_path / "b")) == len(scans + results)
        assert find_volumes(results[0], output_dir=tmp_path) == results[:1]  # asked for
        write_dicom(tmp_path / "ct")
        touch(tmp_path, "ct/ct_interp.nii.gz")
        assert find_volumes(tmp_path / "ct", output_dir=tmp_path / "ct") == [str(tmp_path / "ct")]

    def test_recursive(self, tmp_path):
        files = touch(tmp_path, "a/1.nii", "a/deep/er/2.nii.gz", "b/3.mha", "4.nii")
        touch(tmp_path, "a/._1.nii", "b/notes.txt")
        assert find_volumes(tmp_path, recursive=True) == sorted(files)
        assert find_volumes(tmp_path) == [files[3]]

    def test_linked_folders(self, tmp_path):
        """They are looked into, once; a loop of links ends."""
        files = touch(tmp_path / "elsewhere", "1.nii", "deep/2.nii")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "a").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "data" / "b").symlink_to(tmp_path / "data")
        (tmp_path / "data" / "c").symlink_to(tmp_path / "elsewhere")
        expected = [str(tmp_path / "data" / "a" / name) for name in ("1.nii", "deep/2.nii")]
        assert find_volumes(tmp_path / "data", recursive=True) == expected and len(files) == 2

    def test_dicom_folders_below(self, tmp_path):
        """Each folder with a series is a volume; one with image files beside it is not."""
        write_dicom(tmp_path / "a" / "ct")
        write_dicom(tmp_path / "a" / "mr")
        write_dicom(tmp_path / "c")
        files = touch(tmp_path, "b.nii", "c/z.nii", "a/notes.txt")
        expected = [str(tmp_path / "a" / name) for name in ("ct", "mr")] + files[:2]
        assert find_volumes(tmp_path, recursive=True) == expected
        assert find_volumes(tmp_path / "a" / "ct", recursive=True) == expected[:1]
        assert find_volumes(tmp_path / "c") == files[1:2] and find_volumes(tmp_path) == files[:1]
        assert find_volumes(tmp_path / "a") == [str(tmp_path / "a")]  # the export of an archive
        assert training_volumes(tmp_path, tmp_path / "phantoms") == expected

    def test_list(self, tmp_path):
        touch(tmp_path, "folder/b.nii", "folder/a.nii", "z.mha")
        write_dicom(tmp_path / "series")
        touch(tmp_path, "series/README.txt")
        (frames,) = write_series(tmp_path / "mf", np.zeros((6, 7, 3)), np.diag([1, 1, 4, 1.0]), multi_frame=True)
        assert find_volumes(frames) == [str(frames)] and find_volumes(tmp_path / "mf") == [str(tmp_path / "mf")]
        sources = [tmp_path / "z.mha", str(tmp_path / "folder"), tmp_path / "series"]
        expected = ["z.mha", "folder/a.nii", "folder/b.nii", "series"]
        assert find_volumes(sources) == [str(tmp_path / name) for name in expected]
        assert find_volumes(tuple(sources[:1])) == [str(tmp_path / "z.mha")]

    def test_text_file_with_a_list(self, tmp_path, monkeypatch):
        """A path on every line, from the current directory; what is missing stays, for whoever reads it to tell."""
        files = touch(tmp_path, "one/b.nii", "two/a.nii.gz", "two/c.mha")
        listed = tmp_path / "scans.TXT"
        lines = [
            "\ufeff# scans of today",
            files[0],
            "",
            "  two  ",
            "nowhere.nii",
            f"{tmp_path / 'empty'}",
            "more.txt",
            files[0],
        ]
        listed.write_text("\n".join(lines), encoding="utf-8")
        (tmp_path / "empty").mkdir()
        touch(tmp_path, "more.txt")
        monkeypatch.chdir(tmp_path)
        in_folder = ["two/a.nii.gz", "two/c.mha"]
        assert find_volumes(listed) == [files[0], *in_folder, "nowhere.nii", str(tmp_path / "empty"), "more.txt"]

    def test_text_file_with_no_list(self, tmp_path):
        listed = tmp_path / "scans.txt"
        for content in (b"", b"# none\n\n"):
            listed.write_bytes(content)
            check_error("scans.txt: lists nothing; expected one path on every line.", find_volumes, listed)
        listed.write_bytes(b"\xff\xfe\x00a")
        check_error("scans.txt: is not a text file; expected one path on every line.", find_volumes, listed)

    @pytest.mark.parametrize("source", ["", "  ", [], (), ["a", ""]])
    def test_nothing_given(self, source, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        touch(tmp_path, "a")
        check_error("no input is given; expected an image file", find_volumes, source)

    def test_missing(self, tmp_path):
        message = check_error("no such file or folder", find_volumes, tmp_path / "no.nii")
        assert str(tmp_path / "no.nii") in message
        touch(tmp_path, "a.nii")
        check_error("no.nii: no such file", find_volumes, [tmp_path / "a.nii", tmp_path / "no.nii"])

    @pytest.mark.parametrize(
        ("names", "recursive"),
        [([], True), (["notes.txt"], True), ([".a.part-1.nii.gz"], True), ([], False), (["a/1.nii"], False)],
    )
    def test_no_image(self, tmp_path, names, recursive):
        touch(tmp_path, *names)
        message = check_error("no image in this folder", find_volumes, tmp_path, recursive=recursive)
        assert str(tmp_path) in message and "DICOM" in message

    @pytest.mark.parametrize(
        ("names", "recursive"),
        [(["a.nii", "a.nii.gz"], False), (["a.mha", "a.nrrd"], False), (["1/a.nii", "2/a.nii"], True)],
    )
    def test_same_output_name(self, tmp_path, names, recursive):
        files = touch(tmp_path, *names)
        message = check_error("would get the same output name", find_volumes, tmp_path, recursive=recursive)
        assert all(file in message for file in files)
        check_error("would get the same output name", find_volumes, files)
        assert find_volumes(tmp_path, recursive=recursive, distinct=False) == files
        (tmp_path / "scans.txt").write_text("\n".join(files))
        check_error("would get the same output name", find_volumes, tmp_path / "scans.txt")
        # where nothing is written that is no matter
        assert find_volumes(tmp_path / "scans.txt", distinct=False) == find_volumes(files, distinct=False) == files


FILES = ["d/s1_a.nii", "d/s1_b.nii", "e/s2_a.nii", "e/s3_a.nii", "e/s3_b.nii", "e/s4.nii"]


def names(split, part):
    return [item["image"] for item in split[part]]


class TestSplit:
    def test_one_subject_without_brackets(self):
        split = split_volumes(["a_1.nii", "b_1.nii", "c_1.nii"], validation_subjects="b_", test_subjects="c_")
        assert [[item["image"] for item in part] for part in split.values()] == [["a_1.nii"], ["b_1.nii"], ["c_1.nii"]]

    def test_subjects_stay_together(self):
        split = split_volumes([*FILES, "e/s5.nii"], validation_subjects=["s2", "s3"], test_subjects=["s1", "s4"])
        assert names(split, "training") == ["e/s5.nii"]
        assert names(split, "validation") == ["e/s2_a.nii", "e/s3_a.nii", "e/s3_b.nii"]
        assert names(split, "test") == ["d/s1_a.nii", "d/s1_b.nii", "e/s4.nii"]

    def test_beginning_of_the_name_not_of_the_path(self):
        split = split_volumes(["s1/x.nii", "t/s1.nii"], validation_subjects=("s1",))
        assert names(split, "training") == ["s1/x.nii"] and names(split, "validation") == ["t/s1.nii"]
        split = split_volumes(["s1/x.nii", "t/s1.nii", "v.nii"], ["v"], training_subjects=["s1"])
        assert names(split, "training") == ["t/s1.nii"]

    def test_numbers_are_not_cut(self):
        split = split_volumes(["p_1.nii", "p_1_b.nii", "p_10.nii", "p_11.nii"], ["p_1"], ["p_11"])
        assert [names(split, part) for part in split] == [["p_10.nii"], ["p_1.nii", "p_1_b.nii"], ["p_11.nii"]]

    @pytest.mark.parametrize(
        ("files", "subjects"),
        [
            (["d/sub-01/anat/sub-01_T1w.nii.gz", "d/sub-01/anat/sub-01_T2w.nii.gz", "d/sub-02/a.nii"], [[0, 1], [2]]),
            (["sub-a1_x.nii", "sub-a10_x.nii", "sub-a1_y.nii"], [[0, 2], [1]]),
            (["p1_T1.nii", "p1_T2.nii", "p10_T1.nii"], [[0, 1], [2]]),
            (["study7_01_a.nii", "study7_01_b.nii", "study7_02_a.nii"], [[0, 1], [2]]),
            (["a/T1.nii", "a/T2.nii", "b/T1.nii"], [[0, 1], [2]]),
            (["a/flair.nii", "a/pd.nii", "b/flair.nii"], [[0, 1], [2]]),
            (["anna.nii", "berta.nii"], [[0], [1]]),
            (["scan1.nii"], [[0]]),
        ],
    )
    def test_subjects_of_names(self, files, subjects):
        assert list(subjects_of(files).values()) == [[files[k] for k in group] for group in subjects]

    @pytest.mark.parametrize("seed", range(20))
    def test_subject_is_never_divided(self, seed):
        files = [f"p_{subject}_{scan}.nii" for subject in range(10) for scan in "ab"]
        split = split_volumes(files, seed=seed)
        assert len(split["validation"]) == 4
        subjects = [{name[:4] for name in names(split, part)} for part in ("training", "validation")]
        assert not subjects[0] & subjects[1]

    def test_without_test_subjects(self):
        split = split_volumes(FILES, validation_subjects=["s3"])
        assert split["test"] == split["validation"] and len(split["training"]) == 4

    @pytest.mark.parametrize(("fraction", "count"), [(0.01, 1), (0.2, 4), (0.5, 10), (0.9, 18)])
    def test_fraction(self, fraction, count):
        files = [f"{k}.nii" for k in range(20)]
        split = split_volumes(files, validation_fraction=fraction)
        assert len(split["validation"]) == count
        assert sorted(names(split, "training") + names(split, "validation")) == sorted(files)
        drawn = [
            tuple(names(split_volumes(files, validation_fraction=fraction, seed=s), "validation")) for s in range(9)
        ]
        assert len(set(drawn)) > 4
        for seed in range(9):  # whatever the order of the files
            again = split_volumes(files[::-1], validation_fraction=fraction, seed=seed)
            assert tuple(names(again, "validation")) == drawn[seed]

    def test_fraction_beside_test_subjects(self):
        split = split_volumes(FILES, test_subjects=["s1", "s2"], validation_fraction=0.34)
        assert names(split, "test") == FILES[:3]
        assert names(split, "validation") in (FILES[3:5], FILES[5:])  # all volumes of a subject
        assert set(names(split, "validation") + names(split, "training")) == set(FILES[3:])

    def test_errors(self):
        message = check_error("named for validation and for testing", split_volumes, FILES, ["s1"], ["s1_b", "s2"])
        assert message.startswith("d/s1_b.nii: ")
        check_error("no volume is left for training of 6", split_volumes, FILES, ["s"])
        check_error("no volume is left for validation of 6", split_volumes, FILES, ["unknown"])
        check_error("no volume is left for training of 1", split_volumes, ["a.nii"])
        check_error("no volume is left for training of 0", split_volumes, [])
        for fraction in (0, 1, -0.5, 1.5, float("nan")):
            named = f"validation_fraction must be between 0 and 1, got {fraction}"
            check_error(named, split_volumes, FILES, validation_fraction=fraction)


class TestTrainingSubjects:
    @pytest.mark.parametrize(
        ("subjects", "expected"),
        [
            (["s1", "s3"], [1, 2, 4, 5]),
            (["s3", "s1"], [4, 5, 1, 2]),  # in the order named
            (["s2", "s2", "s2"], [3, 3, 3]),
            (["s1", "s2", "s1"], [1, 2, 3, 1, 2]),
            (["s1", "s1_b"], [1, 2, 2]),  # one scan more often than its subject
            (("s2",), [3]),
            (["s2", "unknown"], [3]),
            (iter(["s3", "s2"]), [4, 5, 3]),
            (iter(()), [1, 2, 3, 4, 5]),  # all
        ],
    )
    def test_repeated_as_named(self, subjects, expected):
        split = split_volumes(FILES, validation_subjects=["s4"], training_subjects=subjects)
        assert names(split, "training") == [FILES[k - 1] for k in expected]
        assert names(split, "validation") == names(split, "test") == ["e/s4.nii"]

    def test_never_those_of_validation_or_test(self):
        subjects = ["s1", "s2", "s2", "s3", "s4"]
        split = split_volumes(FILES, ["s1", "s3_b"], ["s2"], training_subjects=subjects)
        assert names(split, "training") == ["e/s3_a.nii", "e/s4.nii"]
        assert names(split, "validation") == ["d/s1_a.nii", "d/s1_b.nii", "e/s3_b.nii"]
        assert names(split, "test") == ["e/s2_a.nii"]

    @pytest.mark.parametrize("seed", range(6))
    def test_beside_a_drawn_validation_set(self, seed):
        """The draw is the same whoever is trained on, and is not trained on."""
        drawn = split_volumes(FILES, seed=seed, validation_fraction=0.34)
        split = split_volumes(FILES, seed=seed, validation_fraction=0.34, training_subjects=["s1", "s3", "s3"])
        assert split["validation"] == drawn["validation"] and split["test"] == drawn["test"]
        left = names(drawn, "training")
        assert names(split, "training") == [f for part in ("s1", "s3", "s3") for f in left if f"/{part}" in f]

    @pytest.mark.parametrize("subjects", [["unknown"], ["s1"], ["s2", "s1_a"]])
    def test_none_left(self, subjects):
        named = "no volume is left for training of 6; expected at least one for each"
        check_error(named, split_volumes, FILES, ["s1"], ["s2"], training_subjects=subjects)


class TestTrainingVolumes:
    def test_phantoms(self, tmp_path):
        settings = {"shape": (12, 14, 3), "spacing": (8.0, 8.0, 20.0), "slice_thickness": 0.0}
        files = training_volumes("", tmp_path / "phantoms", ("heart", "head"), 2, seed=5, **settings)
        expected = ["head_005", "head_006", "heart_005", "heart_006"]
        assert files == [str(tmp_path / "phantoms" / f"{name}.nii.gz") for name in expected]
        image = nib.load(files[0])
        assert image.shape == (12, 14, 3)
        np.testing.assert_allclose(image.header.get_zooms(), (8, 8, 20))
        assert np.asarray(image.dataobj).std() > 10
        assert len(training_volumes("", tmp_path / "all", num_phantoms=1, shape=(8, 8, 2), spacing=(9, 9, 20))) == 3

    def test_dataset(self, tmp_path):
        """Files of one name in several folders are fine: every patient may have an image.nii.gz."""
        files = touch(tmp_path / "data", "p1/image.nii.gz", "p2/image.nii.gz", "p2/late/image.nii.gz")
        assert training_volumes(tmp_path / "data", tmp_path / "phantoms") == files
        assert training_volumes([str(tmp_path / "data" / "p1")], tmp_path / "phantoms") == files[:1]
        assert not (tmp_path / "phantoms").exists()


class TestVolumesPerBatch:
    @pytest.mark.parametrize(("batch", "samples", "volumes"), [(12, 4, 3), (8, 8, 1), (5, 1, 5)])
    def test_whole_volumes(self, batch, samples, volumes):
        assert volumes_per_batch(batch, samples) == volumes

    @pytest.mark.parametrize(("batch", "samples"), [(12, 5), (4, 8), (0, 1), (-8, 2), (4, 0), (4, -2)])
    def test_errors(self, batch, samples):
        named = f"batch_size {batch} must be a positive multiple of samples_per_volume {samples}"
        check_error(named, volumes_per_batch, batch, samples)


class TestBodyParts:
    @staticmethod
    def parts(names, body_parts):
        return [item["body_part"] for item in with_body_parts([{"image": name} for name in names], body_parts)]

    @pytest.mark.parametrize(
        ("names", "body_parts", "expected"),
        [
            # the longest beginning wins, of the file's or the DICOM folder's own name
            (["ct_leg_1.nii", "ct_l.nii", "ct1.nii", "x_ct.nii", "CT_1.nii", "c.nii"],
             {"ct": "chest", "ct_leg": "leg", "ct_l": "abdomen"}, ["leg", "abdomen", "chest", "", "", ""]),
            (["leg/a.nii", "a/leg.nii", "/x/leg_series", "leg/b/", Path("x") / "leg_1.nii"],
             {"leg": "leg"}, ["", "leg", "leg", "", "leg"]),
            ([f"{part}_1.nii" for part in BODY_PARTS], {part: part for part in BODY_PARTS}, list(BODY_PARTS)),
            (["a.nii", "b.nii"], {"": "chest", "b": "head"}, ["chest", "head"]),
            (["a.nii", "b.nii"], {}, ["", ""]),
            ([], {"a": "head"}, []),
        ],
    )  # fmt: skip
    def test_longest_beginning_wins(self, names, body_parts, expected):
        assert self.parts(names, body_parts) == expected
        assert self.parts(names, dict(reversed(body_parts.items()))) == expected

    def test_items_stay(self):
        """Other entries and the order are kept; neither the items nor the settings are modified."""
        items = [{"image": "b.nii", "label": "y"}, {"image": "a.nii", "body_part": "leg"}, {"image": "b.nii"}]
        body_parts = {"a": "head"}
        assert with_body_parts(iter(items), body_parts) == [
            {"image": "b.nii", "label": "y", "body_part": ""},
            {"image": "a.nii", "body_part": "head"},
            {"image": "b.nii", "body_part": ""},
        ]
        assert items[0] == {"image": "b.nii", "label": "y"} and items[1]["body_part"] == "leg" and len(items[2]) == 1
        assert body_parts == {"a": "head"}

    @pytest.mark.parametrize("part", ["thorax", "Head", "", None])
    def test_unknown_part(self, part):
        """Refused even where no file has such a name."""
        pattern = f"unknown body part {part!r}; expected one of head, chest, abdomen, leg"
        check_error(pattern, with_body_parts, [{"image": "a.nii"}], {"b": "head", "c": part})
