import numpy as np

from vlmlab.world.domains import DOMAINS
from vlmlab.world.mixture import DOMAIN_SHARE, STYLES, draw
from vlmlab.world.objects import UNSEEN

rng = np.random.default_rng(0)
SAMPLES = [draw(rng) for _ in range(500)]


def test_domains_have_their_share():
    share = np.mean([s.scene is None for s in SAMPLES])
    assert abs(share - DOMAIN_SHARE) < 0.07
    shown = {name for name, domain in DOMAINS.items() if domain.pretraining_weight > 0}
    assert {s.domain for s in SAMPLES if s.scene is None} == shown


def test_unseen_things_are_in_no_picture():
    for s in SAMPLES:
        if s.scene is None:
            assert DOMAINS[s.domain].classes[s.index].status != "unseen"
        else:
            assert not set(s.scene.categories) & set(UNSEEN)


def test_negatives_are_never_shown():
    styles = [s.scene.style for s in SAMPLES if s.scene is not None]
    assert "negative" not in styles
    assert abs(styles.count("photo") / len(styles) - STYLES["photo"]) < 0.08


def test_every_picture_has_a_caption():
    for s in SAMPLES:
        text = s.caption(rng)
        assert text
        assert text == text.strip()
        assert s.pixels.shape == (64, 64, 3)


def test_scenes_have_instance_masks():
    for s in SAMPLES[:100]:
        if s.scene is not None:
            assert set(np.unique(s.instances)) <= set(range(len(s.scene.objects) + 1))
