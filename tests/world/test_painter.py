import itertools
import subprocess
import sys

import numpy as np
import pytest

from vlmlab.errors import VlmlabError
from vlmlab.world.category import Category
from vlmlab.world.objects import NAMES
from vlmlab.world.painter import paint_background, pattern, render, smooth_noise
from vlmlab.world.scene import BACKGROUNDS, STYLES, TEXTURES, Scene, SceneObject, sample_scene
from vlmlab.world.shapes import box

ONE_PICTURE = """
import hashlib, numpy as np
from vlmlab.world import render, sample_scene
rng = np.random.default_rng(11)
print(hashlib.sha256(b"".join(render(sample_scene(rng)).pixels.tobytes() for _ in range(5))).hexdigest())
"""


def one(category="star", style="flat", background="plain", **changes):
    values = dict(
        category=category, colour="blue", texture="plain", x=0.5, y=0.5, radius=0.3, rotation=0.0, aspect=1.0,
        flip=False, seed=3,
    )  # fmt: skip
    return Scene(style, background, (SceneObject(**{**values, **changes}),), 7)


def test_pictures_are_the_same_in_every_process():
    runs = [subprocess.run([sys.executable, "-c", ONE_PICTURE], capture_output=True, check=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [128, 256])
def test_a_scene_is_the_same_picture_at_every_size(style, size):
    rng = np.random.default_rng(2)
    for _ in range(4):
        scene = sample_scene(rng, style=style)
        small, large = render(scene, 64), render(scene, size)
        k = size // 64
        reduced = large.pixels.reshape(64, k, 64, k, 3).mean((1, 3))
        assert np.abs(reduced - small.pixels).mean() < 12
        assert (large.instances[k // 2 :: k, k // 2 :: k] != small.instances).mean() < 0.05
        assert np.allclose(large.boxes / k, small.boxes, atol=2)


def test_other_scenes_are_other_pictures():
    rng = np.random.default_rng(2)
    pictures = [render(sample_scene(rng, style="photo")).pixels.astype(float) for _ in range(6)]
    assert all(np.abs(a - b).mean() > 15 for a, b in itertools.pairwise(pictures))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("style", STYLES)
def test_every_category_is_visible_in_every_style(name, style):
    scene = sample_scene(np.random.default_rng(4), categories=[name], style=style, background="gradient")
    picture = render(scene)
    inside = picture.instances == 1
    assert inside.mean() > 0.02
    without = render(Scene(scene.style, scene.background, (), scene.seed))
    change = np.abs(picture.pixels.astype(int) - without.pixels).mean(2)[inside].mean()
    assert change > 8, "the object should stand out from its background"


def test_boxes_enclose_their_masks_tightly():
    rng = np.random.default_rng(3)
    for _ in range(60):
        picture = render(sample_scene(rng))
        for k, (x0, y0, x1, y1) in enumerate(picture.boxes):
            rows, columns = np.nonzero(picture.instances == k + 1)
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x0, y0, x1, y1)


def test_shapes_and_types():
    picture = render(sample_scene(np.random.default_rng(0), count=3), 80)
    assert picture.pixels.shape == (80, 80, 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.instances.shape == (80, 80)
    assert picture.boxes.shape == (3, 4)


def test_later_objects_are_in_front():
    first, second = one("heart").objects[0], one("star", x=0.55).objects[0]
    both = render(Scene("flat", "plain", (first, second), 1)).instances
    alone = render(Scene("flat", "plain", (second,), 1)).instances
    assert ((both == 2) == (alone == 1)).all()
    assert (both == 1).any()


def test_an_object_behind_another_has_no_box():
    hidden, cover = one("star", radius=0.1).objects[0], one("heart", radius=0.5).objects[0]
    assert render(Scene("flat", "plain", (hidden, cover), 1)).boxes[0].tolist() == [0, 0, 0, 0]


def test_an_object_outside_the_picture_is_left_out():
    picture = render(one(x=3.0))
    assert not picture.instances.any()
    assert picture.boxes.tolist() == [[0, 0, 0, 0]]


def test_the_semantic_map_names_things_stuff_and_nothing():
    picture = render(one("star", background="grass"))
    labels = picture.semantic(("fish", "star"), ("sky", "grass"))
    assert set(labels[picture.instances == 1]) == {1}
    assert set(labels[picture.instances == 0]) == {3}
    assert set(picture.semantic(("fish",), ("sky",)).ravel()) == {255}


@pytest.mark.parametrize("colour, channel", [("red", 0), ("green", 1), ("blue", 2)])
def test_colours_are_what_they_are_called(colour, channel):
    picture = render(one("heart", colour=colour))
    inside = picture.pixels[picture.instances == 1].astype(float).mean(0)
    assert inside.argmax() == channel


@pytest.mark.parametrize("texture", [t for t in TEXTURES if t != "plain"])
def test_textures_change_the_body_only(texture):
    plain, patterned = render(one("heart")), render(one("heart", texture=texture))
    changed = np.abs(plain.pixels.astype(int) - patterned.pixels).sum(2) > 30
    inside = plain.instances == 1
    assert 0.15 < changed[inside].mean() < 0.95
    assert changed[~inside].mean() < 0.02


def test_patterns_are_coarse_enough_for_64_pixels():
    u = np.linspace(-1, 1, 400, dtype=np.float32)[None]
    for seed in range(20):
        on = pattern("striped", np.random.default_rng(seed), u, u.T)[0]
        assert 2 <= np.abs(np.diff(on.astype(int))).sum() <= 11


def test_flip_mirrors_the_object():
    left, right = render(one("arrow")).instances, render(one("arrow", flip=True)).instances
    assert (left != right).sum() > 40
    assert (left[:, ::-1] != right).sum() < 40


def test_silhouettes_are_dark_and_negatives_inverted():
    dark = render(one("cat", style="silhouette", background="snow"))
    assert dark.pixels[dark.instances == 1].mean() < 70 < dark.pixels[dark.instances == 0].mean()
    inverted = render(one("cat", style="negative", background="snow"))
    assert inverted.pixels[inverted.instances == 0].mean() < 128


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_backgrounds_vary_within_a_kind(kind):
    means = [paint_background(kind, np.random.default_rng(seed), 32).mean((1, 2)) for seed in range(12)]
    assert np.std(means, 0).max() > 6


def test_smooth_noise_is_smooth_and_bounded():
    field = smooth_noise(np.random.default_rng(0), 64, 5, 9)
    assert field.shape == (64, 64)
    assert 0.5 < np.abs(field).max() < 1.5
    assert np.abs(np.diff(field, axis=1)).max() < 0.35


def test_a_catalogue_of_ones_own():
    square = Category("square", "symbol", ("four corners",), lambda rng: [("body", box(-1, -1, 1, 1))])
    picture = render(one("square"), 64, {"square": square})
    assert picture.instances.mean() == pytest.approx(0.36, abs=0.03)
    assert set(picture.semantic(("square",)).ravel()) == {0, 255}


@pytest.mark.parametrize(
    "scene, words",
    [
        (one("unicorn"), "unicorn"),
        (one(style="oil"), "oil"),
        (one(background="lava"), "lava"),
        (one(texture="furry"), "furry"),
        (one(colour="beige"), "beige"),
    ],
)
def test_unknown_words_are_named(scene, words):
    with pytest.raises(VlmlabError, match=words):
        render(scene)


def test_a_picture_of_a_few_pixels_is_refused():
    with pytest.raises(VlmlabError, match="at least 16"):
        render(one(), 8)
