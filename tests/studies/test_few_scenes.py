"""Detectors on a few scenes: what chapters and panels share."""

from __future__ import annotations

import pytest
import torch

from vlmlab.errors import VlmlabError
from vlmlab.learning.dense import detection
from vlmlab.methods.dense.detections import Detections
from vlmlab.studies.few_scenes import ap50, average_precision, found, learned, prepared, scenes, task_of, twin


def test_the_first_scenes_are_those_of_the_dataset():
    few, more = scenes(12, 6), scenes(20, 9)
    assert len(few.train) == 12 and len(few.test) == 6 and few.train.ids == more.train.ids[:12]
    with pytest.raises(VlmlabError, match="choose tableau"):
        scenes(dataset="digits")


def test_ap50_is_the_number_of_the_evaluator():
    task = task_of(12, 16)
    method = prepared("region_clip", task)
    mine = ap50(found(method, task.test), task.test, task)
    groups = {"base": task.base, "new": task.new}
    theirs = detection(method, task.test, groups)
    assert mine["base"] == pytest.approx(theirs["ap50_base"], abs=1e-3)
    assert mine["new"] == pytest.approx(theirs["ap50_new"], abs=1e-3)
    assert mine["all"] == pytest.approx(theirs["ap50"], abs=1e-3)


def test_an_object_counts_once_and_one_that_is_missed_costs_recall():
    assert average_precision(torch.tensor([0.9, 0.8]), torch.tensor([True, True]), 2) == 1.0
    assert average_precision(torch.tensor([0.9]), torch.tensor([True]), 2) == pytest.approx(51 / 101)
    assert average_precision(torch.zeros(0), torch.zeros(0) > 0, 2) == 0.0
    task = task_of(12, 1)
    truth = task.test.truth(0)
    boxes, labels = truth.boxes[:1].repeat(2, 1), truth.labels[:1].repeat(2)
    twice = [Detections(boxes, torch.tensor([0.9, 0.8]), labels)]
    once = [Detections(boxes[:1], torch.tensor([0.9]), labels[:1])]
    assert ap50(twice, task.test, task) == ap50(once, task.test, task)


def test_a_twin_has_words_of_its_own_and_the_same_weights():
    first = learned("vild", 12, epochs=1)
    assert learned("vild", 12, epochs=1) is first
    other, words = twin(first.method), list(first.method.classes)
    other.say(["zebra", "cup"])
    other.config.nms = 1.0
    assert first.method.classes == words and len(first.method.text) == len(words) and first.method.config.nms != 1.0
    assert other.text_head is first.method.text_head


def test_a_system_that_finds_no_boxes_is_refused():
    with pytest.raises(VlmlabError, match="finds no boxes"):
        learned("coop", 12)
