import json
import math

import numpy as np
import pytest

from vlmlab.errors import VlmlabError
from vlmlab.world.scene import BACKGROUNDS, STYLES, Scene, SceneObject, relation, sample_scene


def at(x, y):
    return SceneObject("star", "red", "plain", x, y, 0.2, 0.0, 1.0, False, 0)


def test_the_same_seed_gives_the_same_scene():
    assert sample_scene(np.random.default_rng(5)) == sample_scene(np.random.default_rng(5))
    assert sample_scene(np.random.default_rng(5)) != sample_scene(np.random.default_rng(6))


def test_scenes_survive_json():
    for seed in range(10):
        scene = sample_scene(np.random.default_rng(seed))
        assert Scene.from_dict(json.loads(json.dumps(scene.as_dict()))) == scene


def test_what_is_asked_for_is_kept():
    rng = np.random.default_rng(0)
    scene = sample_scene(rng, categories=["cat", "fish"], style="sketch", background="snow", colours=["pink"])
    assert scene.categories == ("cat", "fish")
    assert (scene.style, scene.background) == ("sketch", "snow")
    assert {o.colour for o in scene.objects} == {"pink"}
    assert all(len(sample_scene(rng, count=n).objects) == n for n in (1, 2, 3, 4))
    assert {sample_scene(rng, pool=["cat", "cup"]).objects[0].category for _ in range(40)} == {"cat", "cup"}


def test_everything_turns_up():
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, styles=dict.fromkeys(STYLES, 1.0)) for _ in range(400)]
    assert {s.style for s in scenes} == set(STYLES)
    assert {s.background for s in scenes} == set(BACKGROUNDS)
    assert {len(s.objects) for s in scenes} == {1, 2, 3, 4}
    assert 0.5 < np.mean([len(s.objects) == 1 for s in scenes]) < 0.7


def test_a_style_without_share_is_not_drawn():
    rng = np.random.default_rng(0)
    assert {sample_scene(rng, styles={"photo": 1, "flat": 0}).style for _ in range(50)} == {"photo"}


def test_objects_lie_inside_and_hardly_overlap():
    rng = np.random.default_rng(1)
    for _ in range(200):
        objects = sample_scene(rng).objects
        for k, a in enumerate(objects):
            assert a.radius <= a.x <= 1 - a.radius
            assert a.radius <= a.y <= 1 - a.radius
            for b in objects[:k]:
                assert math.hypot(a.x - b.x, a.y - b.y) > 0.9 * (a.radius + b.radius)


@pytest.mark.parametrize("n", [0, 5])
def test_too_many_or_no_objects_are_refused(n):
    with pytest.raises(VlmlabError, match="1 to 4 objects"):
        sample_scene(np.random.default_rng(0), categories=["cat"] * n)


def test_relations_follow_the_clearer_direction():
    centre = at(0.5, 0.5)
    assert relation(at(0.2, 0.55), centre) == "left of"
    assert relation(at(0.8, 0.45), centre) == "right of"
    assert relation(at(0.45, 0.2), centre) == "above"
    assert relation(at(0.55, 0.8), centre) == "below"
    assert relation(at(0.75, 0.75), centre) is None, "a diagonal is neither"
    assert relation(at(0.52, 0.5), centre) is None, "too near to tell"
