import numpy as np
import pytest
import torch

from tests.learning.conftest import coloured
from vlmlab.datasets.image_set import ArrayPictures, ImageSet
from vlmlab.features.bank import FeatureBank, augmented, evaluated


class Counting:
    """The backbone, counting the images that it encodes."""

    def __init__(self, backbone):
        self._backbone, self.encoded = backbone, 0

    def __getattr__(self, name):
        return getattr(self._backbone, name)

    def encode_image(self, images):
        self.encoded += len(images)
        return self._backbone.encode_image(images)


def test_features_are_the_encoder_s_and_are_encoded_once(backbone):
    pictures, counting = coloured(4, 1), Counting(backbone)
    bank = FeatureBank(counting, disk=False)
    features = bank.features(pictures)
    expected = backbone.encode_image(backbone.preprocess(pictures.images()))
    torch.testing.assert_close(features, expected)
    assert bank.features(pictures) is features and counting.encoded == len(pictures)


def test_features_outlive_the_process_on_disk_only(backbone):
    pictures = coloured(4, 1)
    first = FeatureBank(backbone).features(pictures)
    counting = Counting(backbone)
    assert torch.equal(FeatureBank(counting).features(pictures), first) and counting.encoded == 0
    FeatureBank(counting, disk=False).features(pictures)
    assert counting.encoded == len(pictures)


def test_other_pixels_under_the_same_names_are_encoded_anew(backbone):
    bank = FeatureBank(backbone)
    old = coloured(2, 1)
    changed = ImageSet(ArrayPictures(lambda: 255 - old.images(), "inverted"), old.labels, old.ids)
    assert not torch.allclose(bank.features(old), bank.features(changed), atol=1e-3)


def test_a_damaged_cache_file_is_made_anew(backbone, tmp_path):
    pictures = coloured(2, 1)
    first = FeatureBank(backbone).features(pictures)
    (path,) = (tmp_path / "cache").rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:40])
    assert torch.equal(FeatureBank(backbone).features(pictures), first)
    assert torch.equal(FeatureBank(Counting(backbone)).features(pictures), first)


def test_a_cache_that_cannot_be_written_is_no_error(backbone, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="memory only"):
        features = FeatureBank(backbone).features(coloured(2, 1))
    assert features.shape == (6, 16)


def test_views_differ_from_each_other_and_repeat_with_the_seed(backbone):
    pictures = coloured(2, 1)
    views = FeatureBank(backbone, disk=False).views(pictures, 3, seed=0)
    assert views.shape == (3, 6, 16)
    assert not torch.allclose(views[0], views[1], atol=1e-4)
    assert torch.equal(views, FeatureBank(backbone, disk=False).views(pictures, 3, seed=0))
    assert not torch.allclose(views, FeatureBank(backbone, disk=False).views(pictures, 3, seed=1), atol=1e-4)


def test_a_view_depends_on_the_picture_not_on_its_place_nor_on_the_global_generator(backbone):
    pictures = coloured(2, 1)
    state = torch.get_rng_state()
    together = augmented(backbone, pictures, [0, 3], seed=5, view=2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert torch.equal(augmented(backbone, pictures.subset([3]), [0], seed=5, view=2)[0], together[1])


def test_a_picture_s_feature_does_not_depend_on_its_neighbours(backbone):
    rng = np.random.default_rng(0)
    sizes = [(50, 40), (50, 40), (33, 70)]
    pixels = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]

    class Several:
        def identity(self):
            return "several sizes"

        def read(self, positions):
            return [pixels[i] for i in positions]

    pictures = ImageSet(Several(), [0, 0, 0], ["a", "b", "c"])
    mixed, alike = evaluated(backbone, pictures, [0, 1, 2]), evaluated(backbone, pictures, [0, 1])
    assert mixed.shape == (3, 3, 32, 32)
    assert torch.equal(mixed[:2], alike)


def test_crops_leave_the_generator_of_a_gpu_alone(backbone, monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    augmented(backbone, coloured(2, 1), [0, 1], seed=5, view=2)
    assert not seeds
