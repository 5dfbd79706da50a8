import errno
import gzip
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from collapse_audit.errors import (
    CheckpointError,
    CollapseAuditWarning,
    ParameterError,
    SourceError,
)
from collapse_audit.manifest.recipes import Recipe
from collapse_audit.mlcd import MLCDAccumulator
from collapse_audit.network import HeadModel, measure_mlcd, open_samples
from collapse_audit.network.datasets import Samples, choose
from collapse_audit.network.extraction import image_batches
from collapse_audit.network.heads import build_projection
from collapse_audit.network.measurement import cached_features
from collapse_audit.network.preprocessing import preprocessing_for, profiles
from collapse_audit.prototypes import Prototypes

RECIPE = Recipe(
    teacher_temperature=0.1,
    student_temperature=0.1,
    sources=dict.fromkeys(("use_norms", "normalize_features"), "this test"),
)


@pytest.fixture
def model():
    """A head of 12 prototypes over 4 x 4 pixels, without a backbone."""
    weight = np.random.default_rng(0).standard_normal((12, 16))
    return HeadModel(
        prototypes=Prototypes.from_weight(weight),
        projection=build_projection({}, activation="gelu"),
        recipe=RECIPE,
        family=None,
        centre=None,
        backbone=None,
    )


def pictures(n=6, side=4, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Images in one folder per label, of several modes."""
    for index, array in enumerate(pictures(6)):
        place = tmp_path / "images" / ("cat" if index < 3 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).convert(["L", "RGB", "RGBA"][index % 3]).save(place / f"{index}.png")
    return tmp_path / "images"


@pytest.mark.parametrize("profile", ["in1k_bicubic", "in1k_bilinear_std228"])
@pytest.mark.parametrize("size", [(300, 200), (90, 311), (256, 256)])
def test_preprocessing_agrees_with_torchvision(profile, size):
    from torchvision import transforms

    image = Image.fromarray(
        np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    )
    ours = profiles()[profile]
    theirs = transforms.Compose(
        [
            transforms.Resize(
                ours.resize, interpolation=transforms.InterpolationMode(ours.interpolation)
            ),
            transforms.CenterCrop(ours.crop),
            transforms.ToTensor(),
            transforms.Normalize(ours.mean, ours.std),
        ]
    )
    np.testing.assert_allclose(ours(image), theirs(image).numpy(), atol=1e-6)


def test_a_profile_is_fitted_to_the_input_of_a_small_model():
    fitted = profiles()["in1k_bicubic"].fitted(32)
    assert (fitted.resize, fitted.crop) == (37, 32)
    assert preprocessing_for("in1k_bicubic", resize="none").fitted(32).resize is None
    assert preprocessing_for("in1k_bicubic", resize=64)(pictures(1, 20)[0]).shape == (3, 64, 64)
    with pytest.raises(ParameterError, match="Profiles: in1k_bicubic"):
        preprocessing_for("imagenet")


def test_images_give_what_their_pixels_give(model):
    images = pictures(10)
    found = measure_mlcd(model, Samples(images=images), dtype="float64", batch_size=3)
    pixels = images.reshape(10, 16) / 255
    expected = MLCDAccumulator(model.prototypes, temperature=0.1, dtype="float64")
    np.testing.assert_allclose(
        found.probabilities, expected.update(pixels).result().probabilities, rtol=1e-12
    )


def test_features_and_logits_give_what_the_images_give(model, tmp_path):
    pixels = pictures(10).reshape(10, 16) / 255
    unit = pixels / np.linalg.norm(pixels, axis=1, keepdims=True)
    logits = unit @ (model.prototypes.unit_rows() * model.prototypes.norms[:, None]).T
    images = measure_mlcd(model, Samples(images=pictures(10)), dtype="float64")
    for name, values in (("features", pixels), ("logits", logits)):
        path = tmp_path / f"{name}.npz"
        np.savez(path, **{name: values}, labels=np.arange(10) % 2)
        found = measure_mlcd(model, open_samples(path), dtype="float64")
        np.testing.assert_allclose(found.probabilities, images.probabilities, rtol=1e-10)
        assert found.agreement().labels == 2


def test_a_folder_of_folders_has_labels(folder, model):
    samples = open_samples(folder)
    assert samples.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert samples.names[3] == "dog/3.png"
    found = measure_mlcd(model, samples, dtype="float64")
    direct = measure_mlcd(model, Samples(images=pictures(6)), dtype="float64")
    np.testing.assert_allclose(found.probabilities, direct.probabilities, rtol=1e-12)
    assert open_samples(folder / "cat").labels is None


def test_worker_processes_change_nothing(folder, model):
    samples = open_samples(folder)
    alone = measure_mlcd(model, samples, dtype="float64")
    helped = measure_mlcd(model, samples, dtype="float64", workers=1, batch_size=2)
    np.testing.assert_allclose(helped.probabilities, alone.probabilities, rtol=1e-12)


def test_one_unreadable_image_is_skipped_and_counted(folder, model):
    (folder / "cat" / "broken.png").write_bytes(b"\x89PNG no image")
    with pytest.warns(CollapseAuditWarning, match=r"skipped 1 of 7 images .*cat/broken\.png"):
        assert measure_mlcd(model, open_samples(folder)).n == 6


def test_a_pipe_among_the_images_is_skipped_and_not_waited_for(folder, model):
    os.mkfifo(folder / "cat" / "pipe.png")
    with pytest.warns(
        CollapseAuditWarning, match=r"skipped 1 of 7 .*pipe\.png\) \(.*no regular file"
    ):
        assert measure_mlcd(model, open_samples(folder)).n == 6


@pytest.mark.parametrize("limit", [None, 5])
def test_every_sample_knows_its_place_in_the_data_source(folder, model, tmp_path, limit):
    (folder / "cat" / "1b.png").write_bytes(b"no image")
    samples = open_samples(folder)
    with pytest.warns(CollapseAuditWarning, match="skipped 1"):
        found = measure_mlcd(model, samples, limit=limit, dtype="float64", batch_size=2)
    expected = [i for i in choose(7, limit=limit, seed=0) if i != 2]
    assert found.index.tolist() == expected
    names = [samples.names[i] for i in found.index]
    for name, winner in zip(names, found.winners, strict=True):
        alone = measure_mlcd(model, Samples(images=[Image.open(folder / name).convert("RGB")]))
        assert alone.winners.tolist() == [winner]
    cache = tmp_path / "features.safetensors"
    with pytest.warns(CollapseAuditWarning, match="skipped 1"):
        fresh = cached_features(model, str(folder), cache, limit=limit)
    for kept in (fresh, cached_features(model, str(folder), cache, limit=limit)):
        again = measure_mlcd(model, kept)
        assert again.index.tolist() == expected
        assert again.winners.tolist() == found.winners.tolist()


def test_more_than_one_in_a_hundred_unreadable_images_is_an_error(folder, model):
    for name in ("a", "b"):
        (folder / "cat" / f"{name}.png").write_bytes(b"")
    with pytest.raises(SourceError, match="2 of 8 images cannot be read"):
        measure_mlcd(model, open_samples(folder))


class Failing:
    """Images of which the third meets an error of the system."""

    def __init__(self, number):
        self.number = number

    def __len__(self):
        return 200

    def __getitem__(self, index):
        if index == 2:
            raise OSError(self.number, os.strerror(self.number))
        return pictures(1)[0]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EMFILE])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_failing_storage_is_no_unreadable_image(model, number, workers):
    with pytest.raises(SourceError, match=r"image 2 \(.*storage that fails, not the image"):
        measure_mlcd(model, Samples(images=Failing(number)), workers=workers)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
def test_an_image_that_may_not_be_read_is_skipped(model, number):
    with pytest.warns(CollapseAuditWarning, match="skipped 1 of 200"):
        assert measure_mlcd(model, Samples(images=Failing(number))).n == 199


def test_batches_leave_the_caller_its_own_gradient_mode(model):
    batches = image_batches(
        model,
        Samples(images=pictures(4)),
        np.arange(4),
        preprocessing=preprocessing_for("in1k_bicubic", resize="none"),
        batch_size=2,
        workers=0,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    for batch in batches:
        assert not torch.is_inference_mode_enabled()
        assert batch.rows.shape == (2, 16)


def test_a_folder_lists_its_images_in_the_order_of_their_paths(tmp_path):
    names = ["b/2.png", "b/10.png", "b-c/1.JPG", "a/x/z.webp", "a/y.jpeg", "B/1.tiff"]
    for name in [*names, "b/notes.txt", "c.png/1.png", ".hidden/1.png"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with pytest.warns(CollapseAuditWarning, match=r"left out 1 of 9 files, by .* \(1 \.txt\)"):
        samples = open_samples(tmp_path)
    found = [tmp_path / name for name in samples.names]
    assert found == sorted(p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".txt")
    classes = sorted({name.split("/")[0] for name in samples.names})
    assert samples.labels.tolist() == [classes.index(n.split("/")[0]) for n in samples.names]
    assert samples.labels.dtype == np.int64
    (tmp_path / "top.png").touch()
    (tmp_path / "b/notes.txt").unlink()
    assert open_samples(tmp_path).labels is None


def test_a_folder_that_may_not_be_read_is_an_error_with_its_name(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceError, match=rf"{tmp_path}.*cannot be read \(Permission denied\)"):
        open_samples(tmp_path)


def test_images_that_do_not_fit_are_refused_by_name(folder, model):
    Image.fromarray(pictures(1, 5)[0]).save(folder / "cat" / "large.png")
    with pytest.raises(ParameterError, match=r"\(cat/large\.png\) is 5 x 5 pixels, others are 4"):
        measure_mlcd(model, open_samples(folder))
    Image.fromarray(pictures(1)[0].astype(np.uint16)).save(folder / "cat" / "large.png")
    with pytest.raises(ParameterError, match=r"large\.png\) \(mode I;16.* convert this image"):
        measure_mlcd(model, open_samples(folder))


def test_a_limit_chooses_the_same_samples_for_the_same_seed():
    first = choose(100, limit=10, seed=3)
    np.testing.assert_array_equal(first, choose(100, limit=10, seed=3))
    assert len(set(first)) == 10
    assert (np.diff(first) > 0).all()
    assert first.tolist() != choose(100, limit=10, seed=4).tolist()
    assert len(choose(5, limit=10, seed=0)) == 5
    with pytest.raises(ParameterError, match=r"at least 1"):
        choose(5, limit=0, seed=0)
    with pytest.raises(SourceError, match="no samples"):
        choose(0, limit=None, seed=0)


def test_digits_come_with_labels():
    samples = open_samples("digits")
    assert (len(samples), samples.images.shape, set(samples.labels)) == (
        1797,
        (1797, 8, 8),
        set(range(10)),
    )


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_fashion_mnist_is_read_from_its_original_files(tmp_path, packed, nested):
    images, labels = pictures(3, 28), np.array([9, 0, 4], dtype=np.uint8)
    place = tmp_path / "FashionMNIST" / "raw" if nested else tmp_path
    place.mkdir(parents=True, exist_ok=True)
    for name, values in (("images-idx3", images), ("labels-idx1", labels)):
        header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
        content = header + values.tobytes()
        path = place / (f"t10k-{name}-ubyte" + (".gz" if packed else ""))
        path.write_bytes(gzip.compress(content) if packed else content)
    samples = open_samples(f"fashion-mnist:{tmp_path}")
    np.testing.assert_array_equal(samples.images, images)
    assert samples.labels.tolist() == [9, 0, 4]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 4, 4))}, "images must be uint8"),
        ({"features": np.zeros((2, 4), dtype=int)}, "features must be floating point"),
        ({"logits": np.zeros((2, 4, 1))}, "logits must be floating point of n x d"),
        ({"pixels": np.zeros(3)}, "exactly one of images, features, logits; it holds pixels"),
        ({"features": np.zeros((2, 4)), "labels": np.zeros(3, dtype=int)}, "labels must be 2"),
    ],
)
def test_arrays_of_another_shape_or_type_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(SourceError, match=message):
        open_samples(tmp_path / "data.npz")


@pytest.mark.parametrize("name", ["data.npz", "data.safetensors"])
def test_a_damaged_array_file_is_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(SourceError, match=r"not a readable \.npz or safetensors file"):
        open_samples(tmp_path / name)


def test_sources_that_do_not_exist_say_what_can_be_given(tmp_path):
    for data in ("nowhere", "fashion-mnist", "nosuchset:folder", str(tmp_path)):
        with pytest.raises(SourceError, match=r"(?i)give "):
            open_samples(data)
    with pytest.raises(SourceError, match="no t10k-images-idx3-ubyte"):
        open_samples(f"fashion-mnist:{tmp_path}")


def test_samples_that_do_not_fit_the_head_are_refused(model):
    with pytest.raises(ParameterError, match="features must be n x 16"):
        measure_mlcd(model, Samples(features=np.zeros((3, 5))))
    with pytest.raises(ParameterError, match="logits must be n x 12"):
        measure_mlcd(model, Samples(logits=np.zeros((3, 5))))
    with pytest.raises(ParameterError, match="sample 0 holds NaN"):
        measure_mlcd(model, Samples(logits=np.full((3, 12), np.nan)))
    with pytest.raises(CheckpointError, match=r"holds no centre .* `centre=estimate"):
        measure_mlcd(model, Samples(images=pictures()), centre="file")
    with pytest.raises(ParameterError, match="batch_size must be"):
        measure_mlcd(model, Samples(images=pictures()), batch_size=0)


def test_the_centre_is_that_of_the_family_unless_told_otherwise(model):
    from dataclasses import replace

    samples = Samples(images=pictures())
    assert measure_mlcd(model, samples).centre == "none"
    centring = replace(model, recipe=replace(RECIPE, centring=True))
    assert measure_mlcd(centring, samples).centre == "estimated"
    assert measure_mlcd(replace(centring, centre=np.zeros(12)), samples).centre == "file"
    assert measure_mlcd(centring, samples, centre="none").centre == "none"
    student = replace(centring, prototypes=replace(model.prototypes, branch="student"))
    found = measure_mlcd(student, samples)
    assert (found.centre, found.temperature, found.branch) == ("none", 0.1, "student")


def test_features_are_cached_and_reused(folder, model, tmp_path):
    cache = tmp_path / "features.safetensors"
    first = cached_features(model, str(folder), cache, limit=4, seed=1)
    written = cache.read_bytes()
    again = cached_features(model, str(folder), cache, limit=4, seed=1)
    np.testing.assert_array_equal(first.features, again.features)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert cache.read_bytes() == written
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    with pytest.raises(SourceError, match="made with seed '1', not '2'"):
        cached_features(model, str(folder), cache, limit=4, seed=2)
    trained = replace(model, backbone=torch.nn.Linear(16, 16))
    kept = tmp_path / "trained.safetensors"
    cached_features(trained, str(folder), kept)
    cached_features(trained, str(folder), kept)
    with torch.no_grad():
        next(trained.backbone.parameters()).add_(1)  # as if the file was written anew
    with pytest.raises(SourceError, match="made with backbone"):
        cached_features(trained, str(folder), kept)
    with pytest.raises(ParameterError, match=r"kept in a \.safetensors file"):
        cached_features(model, str(folder), tmp_path / "h.bin")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceError, match="cannot be written"):
        cached_features(model, str(folder), tmp_path / "file" / "folder.safetensors")


def test_the_dino_pair_agrees_with_the_official_code_from_image_to_result(shared_checkpoints):
    from collapse_audit.network import load_head_model

    reference = np.load(shared_checkpoints / "dino_vit_mlcd_ref.npz")
    model = load_head_model(
        shared_checkpoints / "dino_vit_mlcd.pth", backbone_arguments={"num_heads": 4}
    )
    samples = Samples(images=reference["images_u8"])
    for dtype, tolerance in (("float64", 1e-9), ("float32", 1e-5)):
        found = measure_mlcd(
            model,
            samples,
            temperature=0.04,
            dtype=dtype,
            preprocessing=preprocessing_for("in1k_bicubic", resize="none"),
        )
        assert found.centre == "file"
        np.testing.assert_allclose(found.probabilities, reference["mlcd"], rtol=tolerance)
        np.testing.assert_allclose(found.mean_entropy, reference["mean_entropy"], rtol=tolerance)
        np.testing.assert_allclose(
            found.mutual_information, reference["mutual_information"], rtol=tolerance
        )


def test_images_of_another_size_than_the_backbone_takes_name_the_option(shared_checkpoints):
    from collapse_audit.network import load_head_model

    model = load_head_model(
        shared_checkpoints / "dino_vit_mlcd.pth", backbone_arguments={"num_heads": 4}
    )
    with pytest.raises(ParameterError, match=r"the backbone takes 32 x 32\. Use `resize=32`"):
        model.features_of(torch.zeros(1, 3, 28, 28))
