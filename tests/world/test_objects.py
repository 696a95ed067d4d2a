import re

import numpy as np
import pytest

from vlmlab.world.objects import BASE, HIERARCHY, KNOWN, NAMES, NOVEL, OBJECTS, RARE, UNSEEN, WITHHELD
from vlmlab.world.shapes import ROLES


def test_there_are_enough_categories_of_every_status():
    assert len(NAMES) >= 60
    assert (len(RARE), len(WITHHELD), len(UNSEEN)) == (7, 7, 5)
    assert set(KNOWN) | set(RARE) | set(WITHHELD) | set(UNSEEN) == set(NAMES)


def test_base_and_novel_split_the_known_names():
    assert set(BASE) | set(NOVEL) == set(KNOWN)
    assert not set(BASE) & set(NOVEL)
    assert 0.2 < len(NOVEL) / len(KNOWN) < 0.3


def test_the_hierarchy_holds_every_category_once():
    leaves = [name for groups in HIERARCHY.values() for names in groups.values() for name in names]
    assert sorted(leaves) == sorted(NAMES)
    for groups in HIERARCHY.values():
        for group, names in groups.items():
            assert names
            assert {OBJECTS[name].group for name in names} == {group}


@pytest.mark.parametrize("name", NAMES)
def test_drawings_stay_in_the_frame_and_differ(name):
    drawn = [OBJECTS[name].draw(np.random.default_rng(seed)) for seed in range(6)]
    for parts in drawn:
        assert {role for role, _ in parts} <= set(ROLES)
        corners = np.concatenate([p for _, p in parts])
        assert np.abs(corners).max() < 1.15
        assert np.ptp(corners, 0).max() > 1.2, "a figure should fill its frame"
    outlines = {np.concatenate([p for _, p in parts]).tobytes() for parts in drawn}
    assert len(outlines) > 1, "instances of a category should vary"


def test_descriptions_do_not_give_a_nameless_category_away():
    hidden = re.compile(rf"\b({'|'.join((*WITHHELD, *UNSEEN, *RARE))})s?\b")
    for category in OBJECTS.values():
        assert not hidden.search(" ".join(category.parts)), category.name


def test_descriptions_tell_categories_apart():
    assert len({(c.group, frozenset(c.parts)) for c in OBJECTS.values()}) == len(NAMES)
