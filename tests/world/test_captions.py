import re

import numpy as np
import pytest

from vlmlab.world.captions import ON, caption, description, group_noun, with_article
from vlmlab.world.mixture import SHOWN, STYLES
from vlmlab.world.objects import BASE, NAMES, OBJECTS, RARE, UNSEEN, WITHHELD
from vlmlab.world.palette import COLOURS
from vlmlab.world.scene import sample_scene

RELATION = re.compile(r"an? (?:\w+ )??(\w+(?: cream)?) (left of|right of|above|below) an? (?:\w+ )??(\w+(?: cream)?)$")


def captions(n, seed=0, **given):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        scene = sample_scene(rng, **given)
        yield scene, caption(scene, rng)


def says(text, name):
    return re.search(rf"\b({name}|{OBJECTS[name].many})\b", text) is not None


def test_the_same_seed_gives_the_same_caption_and_another_visit_another():
    scene = sample_scene(np.random.default_rng(0), count=2)
    assert caption(scene, np.random.default_rng(1)) == caption(scene, np.random.default_rng(1))
    rng = np.random.default_rng(2)
    assert len({caption(scene, rng) for _ in range(30)}) > 10


@pytest.mark.parametrize("pool", [NAMES, WITHHELD, UNSEEN])
def test_withheld_and_unseen_categories_are_never_named(pool):
    hidden = re.compile(rf"\b({'|'.join(f'{n}|{OBJECTS[n].many}' for n in (*WITHHELD, *UNSEEN))})\b")
    for _, text in captions(2000, pool=pool):
        assert not hidden.search(text), text


def test_rare_categories_are_seldom_named():
    named = [says(text, scene.categories[0]) for scene, text in captions(4000, pool=RARE, count=1)]
    assert 0.01 < np.mean(named) < 0.05


def test_known_categories_are_mostly_named():
    named = [says(text, scene.categories[0]) for scene, text in captions(600, pool=BASE, count=1)]
    assert 0.75 < np.mean(named) < 0.9


def test_names_in_captions_are_in_the_scene():
    for scene, text in captions(1500, pool=SHOWN, styles=STYLES):
        # "a cherry on top" and the like are parts: look at what is said outside the descriptions.
        heads = re.sub(r"with .*", "", text)
        for name in BASE:
            if says(heads, name):
                assert name in scene.categories, text


def test_relations_are_true():
    seen = 0
    for scene, text in captions(3000, pool=BASE, count=2, background="plain"):
        match = RELATION.search(text)
        if match is None or match[1] not in scene.categories or match[3] not in scene.categories:
            continue
        seen += 1
        where = {o.category: (o.x, o.y) for o in scene.objects}
        (ax, ay), (bx, by) = where[match[1]], where[match[3]]
        assert {"left of": ax < bx, "right of": ax > bx, "above": ay < by, "below": ay > by}[match[2]], text
        across = abs(ax - bx) > abs(ay - by)
        assert across == (match[2] in ("left of", "right of"))
    assert seen > 300


def test_numbers_are_true():
    seen = 0
    for scene, text in captions(1500, pool=BASE[:6], count=4):
        for name in BASE[:6]:
            match = re.search(rf"\b(two|three|four) (?:\w+ ){{0,2}}{OBJECTS[name].many}\b", text)
            if match:
                seen += 1
                assert scene.categories.count(name) == ("two", "three", "four").index(match[1]) + 2
    assert seen > 200


@pytest.mark.parametrize("style", ["silhouette", "sketch", "negative"])
def test_colours_and_backgrounds_are_not_told_where_they_cannot_be_seen(style):
    on_the_ground = [name for name in BASE if OBJECTS[name].group != "sky"]
    for _, text in captions(400, style=style, pool=on_the_ground):
        assert not re.search(rf"\b({'|'.join(COLOURS)})\b", re.sub(r"with .*", "", text)), text
        assert not text.endswith(tuple(ON.values())), text


def test_colours_and_textures_in_captions_are_true():
    colours = 0
    for scene, text in captions(1500, pool=BASE, count=1, style="photo"):
        found = re.match(rf".*?\b({'|'.join(COLOURS)})\b", re.sub(r"with .*", "", text))
        if found:
            colours += 1
            assert found[1] == scene.objects[0].colour
        for texture in ("striped", "dotted", "checked"):
            if texture in text:
                assert scene.objects[0].texture == texture
    assert 0.2 < colours / 1500 < 0.4


def test_every_category_has_a_description_without_its_name():
    for name in NAMES:
        text = description(name)
        assert text.startswith(group_noun(name))
        assert not re.search(rf"\b{name}\b", text)


def test_articles():
    assert with_article("apple") == "an apple"
    assert with_article("fish") == "a fish"
