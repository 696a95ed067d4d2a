"""Exercises of chapter 7.4, discussion of knowledge distillation."""

from __future__ import annotations

import torch

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, number, same_shape


def gain_by_kind(kinds, values, baselines):
    found = {}
    for kind, value, baseline in zip(kinds, values, baselines, strict=True):
        found.setdefault(kind, []).append(value - baseline)
    return {kind: sum(gains) / len(gains) for kind, gains in found.items()}


@exercise(
    "07_4.gain_by_kind",
    solution=gain_by_kind,
    hints=(
        "Each system is compared with its own baseline first; only gains are averaged, kind by kind.",
        "Collect `value - baseline` in a list per kind (`setdefault(kind, [])`), then divide the sum of each list by its length.",
    ),
    seen="A mean of figures compares datasets and metrics; a mean of gains over the same baseline compares systems. AP50 and mIoU do not add up "
    "even so: keep tasks apart.",
)
def _gain_by_kind(answer) -> None:
    kinds = ["features", "pseudo", "features", "pseudo", "features"]
    values, baselines = [30.0, 20.0, 50.0, 24.0, 40.0], [10.0, 12.0, 45.0, 12.0, 41.0]
    expected = gain_by_kind(kinds, values, baselines)
    given = ask(answer, kinds, values, baselines)
    if not isinstance(given, dict) or set(given) != set(expected):
        raise Wrong("a dictionary is wanted, with one entry per kind: {'features': ..., 'pseudo': ...}.")
    for kind in expected:
        said = number(given[kind], -1000, 1000, "points")
        own = [v for k, v in zip(kinds, values, strict=True) if k == kind]
        if abs(said - sum(own) / len(own)) < 1e-6:
            raise Wrong("those are mean figures; take each system's baseline off before averaging.")
        if abs(said + expected[kind]) < 1e-6 and expected[kind]:
            raise Wrong("the sign is turned round: a gain is the figure less its baseline.")
        if abs(said - expected[kind] * len(own)) < 1e-6:
            raise Wrong("that is the sum of the gains; a kind with more systems would look better. Take the mean.")
        if abs(said - expected[kind]) > 1e-6:
            raise Wrong(f"{said:g} is not the mean gain of {kind}.")


def of_the_room(value, floor, ceiling):
    return 100 * (value - floor) / (ceiling - floor)


@exercise(
    "07_4.of_the_room",
    solution=of_the_room,
    hints=(
        "What is there to gain is the way from the untrained baseline (floor) to the teacher with true regions (ceiling).",
        "The way made, `value - floor`, over the whole way, `ceiling - floor`, in percent.",
    ),
    seen="Two systems with the same figure may have used very different shares of their room. A share above 100 says that the student knows "
    "something that its teacher does not: the masks of seen classes.",
)
def _of_the_room(answer) -> None:
    for value, floor, ceiling in ((20.0, 10.0, 90.0), (5.0, 10.0, 60.0), (70.0, 0.0, 70.0)):
        expected = of_the_room(value, floor, ceiling)
        given = number(ask(answer, value, floor, ceiling), -1e4, 1e4, "percent")
        if abs(given * 100 - expected) < 1e-6 and expected:
            raise Wrong("that is a share between 0 and 1; give percent.")
        if abs(given - 100 * value / ceiling) < 1e-6 and floor:
            raise Wrong("what the baseline has already was counted as gained: take the floor off both.")
        if abs(given - 100 * (value - floor) / ceiling) < 1e-6 and floor:
            raise Wrong("the whole way is from the floor to the ceiling, not from zero.")
        if abs(given - expected) > 1e-6:
            raise Wrong(f"{given:g} is not it for a value of {value:g} between {floor:g} and {ceiling:g}.")


def sure_labels(logits, threshold):
    p, label = logits.softmax(-1).max(-1)
    return torch.where(p >= threshold, label, -1)


@exercise(
    "07_4.sure_labels",
    solution=sure_labels,
    hints=(
        "A softmax per region; its largest entry says how sure the teacher is, and where it stands is the label.",
        "`p, label = logits.softmax(-1).max(-1)`; then `torch.where(p >= threshold, label, -1)`.",
    ),
    seen="The threshold trades: a high one has few labels, mostly right, of easy things; a low one teaches the student the teacher's errors. "
    "Features have no threshold, because they decide nothing.",
)
def _sure_labels(answer) -> None:
    logits = 2 * torch.randn(8, 4, generator=generator(1))
    expected = sure_labels(logits, 0.6)
    given = same_shape(ask(answer, logits, 0.6), expected, "[R]")
    if torch.equal(given, logits.argmax(-1)):
        raise Wrong("every region got a label; the unsure ones should have -1.")
    if torch.equal(given, torch.where(logits.amax(-1) >= 0.6, logits.argmax(-1), -1)):
        raise Wrong("the threshold is for probabilities: take the softmax before comparing.")
    sure = logits.softmax(-1).amax(-1) >= 0.6
    if torch.equal(given, torch.where(sure, -1, logits.argmax(-1))):
        raise Wrong("the sure regions lost their labels, and the unsure ones have them.")
    close(given.float(), expected.float(), "the most likely word where it is likely enough, else -1.")
