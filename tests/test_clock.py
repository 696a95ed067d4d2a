"""Seconds do not depend on what was cached."""

from __future__ import annotations

import threading
import time

import pytest

from vlmlab.clock import Clock, charge, uncounted
from vlmlab.datasets import Task
from vlmlab.features.bank import FeatureBank
from vlmlab.learning.fit import fit
from vlmlab.methods.adapter import svl_adapter
from vlmlab.registry import load_system
from vlmlab.studies.run import shared_bank, shared_dataset


def test_what_is_shared_takes_no_time_and_what_was_ready_takes_its_own():
    with Clock() as outer, Clock() as inner:
        with uncounted():
            time.sleep(0.05)
        charge(10.0, 5.0)
        thread = threading.Thread(target=charge, args=(100.0, 100.0))  # of somebody else
        thread.start()
        thread.join()
    for clock in (outer, inner):
        wall, cpu = clock.read()
        assert 10 <= wall < 10.05 and 5 <= cpu < 5.05
        assert clock.read() == (wall, cpu), "it stops when it is left"
    charge(1.0, 1.0)
    assert outer.read()[0] < 10.05


@pytest.fixture
def task():
    backbone = shared_bank("micro-vit").backbone
    return Task(backbone, shared_dataset("digits"), 2, 0)


class Slow(FeatureBank):
    """Every encoding takes 0.2 seconds."""

    def _encode(self, pictures, images_at):
        time.sleep(0.2)
        return super()._encode(pictures, images_at)


def test_support_features_are_nobody_s_and_views_are_the_system_s(task, tmp_path, monkeypatch):
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path))
    system = load_system("clip_adapter")

    def seconds(bank, views: int) -> float:
        config = system.configure(task.backbone, epochs=1)
        return fit(system(task.backbone, config), task.seen_by("few-shot"), bank=bank, views=views).seconds

    assert seconds(Slow(task.backbone), 0) < 0.2
    first = Slow(task.backbone)
    cold, warm, from_disk = seconds(first, 3), seconds(first, 3), seconds(FeatureBank(task.backbone), 3)
    assert all(0.6 < s < 5 for s in (cold, warm, from_disk))
    for beside in tmp_path.rglob("*.json"):
        beside.unlink()  # features of an older vlmlab, which say nothing of what they took
    assert seconds(Slow(task.backbone), 3) > 0.6


def test_an_encoder_that_was_trained_before_costs_what_it_had_cost(task, monkeypatch):
    svl_adapter.LEARNED.clear()
    real = svl_adapter.pretrain

    def slow(*args, **kwargs):
        time.sleep(0.3)
        return real(*args, **kwargs)

    monkeypatch.setattr(svl_adapter, "pretrain", slow)
    system = load_system("svl_adapter")
    config = system.configure(task.backbone, ssl_epochs=1, epochs=1)
    bank = FeatureBank(task.backbone, disk=False)
    cold, warm = (fit(system(task.backbone, config), task.seen_by("semi-supervised"), bank=bank) for _ in range(2))
    assert cold.seconds > 0.3 and warm.seconds > 0.3
    svl_adapter.LEARNED.clear()
