"""Every registered system keeps the contract of `vlmlab.testing`, from the moment its file lies under vlmlab/methods."""

import pytest

from vlmlab.registry import load_system, registry
from vlmlab.testing import cases


@pytest.mark.parametrize(("check", "system"), cases(*registry()), ids=str)
def test_contract(check, system):
    check(system)


def test_the_most_steps_leave_few_shot_sets_of_twelve_classes_alone():
    limited = [key for key in registry() if load_system(key).embedded.get("most_steps")]
    assert limited
    for key in limited:
        own = load_system(key).embedded
        assert own["epochs"] * (12 * 16 // own["batch_size"]) <= own["most_steps"], key
