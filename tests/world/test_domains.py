import numpy as np
import pytest
from PIL import Image

from vlmlab.errors import VlmlabError
from vlmlab.world.domain import DomainClass
from vlmlab.world.domains import DOMAINS
from vlmlab.world.domains.wording import captions, with_article

EVERY = pytest.mark.parametrize("domain", DOMAINS.values(), ids=list(DOMAINS))


def pictures(domain, seeds, size=64, style=None):
    """Images [seeds, classes, S, S, 3]; each has a generator of its own."""
    return np.array(
        [
            [domain.sample(c, np.random.default_rng([c, s]), size, style) for c in range(len(domain.classes))]
            for s in seeds
        ]
    )


@EVERY
def test_pictures_follow_from_the_generator_alone(domain):
    first, again = pictures(domain, (1,)), pictures(domain, (1,))
    assert first.dtype == np.uint8
    assert first.shape == (1, len(domain.classes), 64, 64, 3)
    assert np.array_equal(first, again)
    other = pictures(domain, (2,))
    assert all(not np.array_equal(a, b) for a, b in zip(first[0], other[0], strict=True))


@EVERY
def test_one_set_of_parameters_gives_one_picture_at_every_size(domain):
    """A flat image has no noise, so the large one, reduced, is close to the small one and far from other classes."""
    small = pictures(domain, (3,), 64, "flat")[0].astype(float)
    large = pictures(domain, (3,), 192, "flat")[0]
    assert large.shape[1:] == (192, 192, 3)
    reduced = np.array([np.asarray(Image.fromarray(p).reduce(3)) for p in large], dtype=float)
    distance = np.abs(reduced[:, None] - small[None]).mean(axis=(2, 3, 4))
    assert np.array_equal(distance.argmin(axis=1), np.arange(len(small)))
    assert np.diag(distance).mean() < 0.3 * distance.mean()


@EVERY
def test_the_photo_style_adds_noise_that_the_flat_one_lacks(domain):
    photo, flat = (pictures(domain, (4, 5), 64, style).astype(float) for style in ("photo", "flat"))
    assert np.abs(photo - flat).mean() > 2


@EVERY
def test_an_unknown_style_is_one_clear_line(domain):
    with pytest.raises(VlmlabError, match=r"'sketch'.*photo, flat") as caught:
        domain.sample(0, np.random.default_rng(0), 64, "sketch")
    assert "\n" not in str(caught.value)


@EVERY
def test_classes_can_be_told_apart(domain):
    """Gradient histograms and mean colours of 4 by 4 cells, nearest class mean: twice chance or more on fresh images."""

    def features(batch):
        pixels = batch.reshape(-1, 64, 64, 3).astype(float) / 255
        grey = pixels.mean(axis=3)
        gy, gx = np.gradient(grey, axis=(1, 2))
        strength, angle = np.hypot(gx, gy), np.arctan2(gy, gx) % np.pi
        bins = [np.where((angle // (np.pi / 6)).astype(int) == k, strength, 0) for k in range(6)]
        maps = np.stack([*bins, *(0.3 * pixels[..., c] for c in range(3))], axis=-1)
        return maps.reshape(len(pixels), 4, 16, 4, 16, -1).mean(axis=(2, 4)).reshape(len(pixels), -1)

    count = len(domain.classes)
    train = features(pictures(domain, range(100, 112))).reshape(12, count, -1)
    test = features(pictures(domain, range(200, 206)))
    spread = train.reshape(12 * count, -1).std(axis=0) + 1e-6
    means = train.mean(axis=0) / spread
    nearest = ((test[:, None] / spread - means[None]) ** 2).sum(axis=2).argmin(axis=1)
    accuracy = (nearest == np.tile(np.arange(count), 6)).mean()
    assert accuracy > 2 / count


@EVERY
def test_classes_are_well_formed(domain):
    names = [c.name for c in domain.classes]
    assert 10 <= len(set(names)) == len(names)
    assert all(len(c.parts) >= 2 for c in domain.classes)
    assert all("{}" in template for template in domain.templates)
    assert domain.gap.endswith(".")
    assert domain.pretraining_weight >= 0


@EVERY
def test_captions_are_true_of_their_class(domain):
    """No caption says another class's name or a withheld one; known names are said as often as stated."""
    rng = np.random.default_rng(6)
    said = []
    for index, entry in enumerate(domain.classes):
        texts = [domain.caption(index, rng) for _ in range(150)]
        if entry.status == "unseen":
            assert texts == [None] * 150
            continue
        for other in domain.classes:
            if other is not entry:
                assert f"a photo of {with_article(other.name)}" not in texts
        naming = sum(entry.name in text for text in texts) / 150
        if entry.status == "known":
            said.append(naming)
        else:
            assert naming < (0.3 if entry.status == "rare" else 1e-9)
    if said:
        assert abs(np.mean(said) - domain.named) < 0.12


def test_the_suite_spreads_from_hardly_named_to_named_by_every_third_caption():
    """Zero-shot prediction should be easy here and hard there, so the catalogue's gaps differ in how often names are said."""
    rng = np.random.default_rng(8)

    def naming(name):
        domain = DOMAINS[name]
        texts = [(c.name, domain.caption(i, rng)) for i, c in enumerate(domain.classes) for _ in range(200)]
        return np.mean([name in text for name, text in texts if text])

    said = {name: naming(name) for name in DOMAINS}
    assert max(said[name] for name in ("aerial", "creatures", "flowers")) < 0.12
    assert 0.12 < said["actions"] < said["scenes"] < min(said[name] for name in ("vehicles", "food", "textures"))
    assert max(said.values()) < 0.5


@pytest.mark.parametrize(
    "phrase, expected",
    [("bird", "a bird"), ("airliner", "an airliner"), ("a person", "a person"), ("two birds", "two birds")],
)
def test_articles(phrase, expected):
    assert with_article(phrase) == expected


def test_statuses_decide_what_a_caption_says():
    classes = tuple(DomainClass(s, (f"mark {s}",), s) for s in ("known", "rare", "withheld", "unseen"))
    describe = captions(classes, (("thing",),) * 4, ("{}",), named=1.0, described=1.0)
    rng = np.random.default_rng(7)
    texts = [[describe(i, rng) for _ in range(200)] for i in range(4)]
    assert set(texts[0]) == {"a known"}
    assert set(texts[1]) == {"a rare", "a thing with mark rare"}
    assert 10 < texts[1].count("a rare") < 60
    assert set(texts[2]) == {"a thing with mark withheld"}
    assert set(texts[3]) == {None}
