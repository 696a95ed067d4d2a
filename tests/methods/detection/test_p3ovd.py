"""P3OVD, a reconstruction: its equations, and what learns when."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import roi_align

from vlmlab.learning.fit import fit
from vlmlab.methods.detection.p3ovd import GRID, P3OVD, VisualPrompt
from vlmlab.randomness import LocalRandom
from vlmlab.testing import toys


def _task():
    return toys.task_for("p3ovd").seen_by("open-vocabulary")


def fitted(**settings) -> tuple[P3OVD, list[set[str]]]:
    base = {"adapt_epochs": 1, "epochs": 1, "batch_size": 12}
    method, moved = P3OVD(toys.backbone(), P3OVD.configure(toys.backbone(), **{**base, **settings})), []

    def look(done, steps, loss):
        moved.append({name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None})

    fit(method, _task(), look)
    return method, moved


def test_prompts_learn_first_and_the_head_after_them():
    assert fitted()[1] == [{"context", "visual"}, {"student"}]
    method, moved = fitted(adapt_epochs=0)
    assert moved == [{"student"}] and "context" not in dict(method.named_parameters())


def test_a_visual_prompt_begins_by_changing_nothing_and_knows_the_words():
    random = torch.Generator().manual_seed(0)
    places, words = (F.normalize(torch.randn(*s, 8, generator=random), dim=-1) for s in ((2, 5), (3,)))
    prompt = VisualPrompt(8)
    torch.testing.assert_close(prompt(places, words, torch.tensor(10.0)), places)
    with torch.no_grad():
        torch.nn.init.eye_(prompt.out.weight)
    attention = (10 * places @ words.T).softmax(-1)
    expected = F.normalize(places + attention @ words, dim=-1)
    torch.testing.assert_close(prompt(places, words, torch.tensor(10.0)), expected)


def prepared(**settings) -> P3OVD:
    method = P3OVD(toys.backbone(), P3OVD.configure(toys.backbone(), **settings))
    with LocalRandom(0):
        method.prepare(_task())
    if method.adapts:
        with torch.no_grad():
            torch.nn.init.eye_(method.visual.out.weight)  # a prompt that changes something
    return method


def test_the_adaptation_is_its_equation():
    method = prepared()
    index, s = torch.arange(3), method.backbone.logit_scale
    with torch.no_grad():
        words = F.normalize(method.base_prompts.features(method.backbone.text, method.context).float(), dim=-1)
    losses = []
    for i in index.tolist():
        places = method.places[i].flatten(1).T  # [T, e]
        places = F.normalize(places + (s * places @ words.T).softmax(-1) @ words, dim=-1)
        for place, label in zip(places, method.place_labels[i].flatten().tolist(), strict=True):
            if label >= 0:
                losses.append(F.cross_entropy(s * place @ words.T, torch.tensor(label)))
    assert len(losses) > 1
    loss = method.adapt_loss(index)
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)
    loss.backward()
    assert method.context.grad.any() and method.visual.query.weight.grad.any() and method.visual.out.weight.grad.any()


@pytest.mark.parametrize("adapt", [0, 1])
def test_pseudo_labels_are_their_equation(adapt):
    """With no threshold, nothing dropped near base objects and no doubles, every proposal has the score of (2)."""
    method = prepared(adapt_epochs=adapt, threshold=0.0, doubles=1.0, off_base=1.0, objectness=0.3)
    found, s, regions = method.label(), method.backbone.logit_scale, method.regions
    with torch.no_grad():
        if adapt:
            words = F.normalize(method.new_prompts.features(method.backbone.text, method.context).float(), dim=-1)
        else:
            words = method.text[torch.tensor(method.new)]
        for i in range(2):
            places = method.places[i].flatten(1).T
            if adapt:
                places = F.normalize(places + (s * places @ words.T).softmax(-1) @ words, dim=-1)
            places = places.T.unflatten(1, method.places.shape[-2:])[None]
            ratio = places.shape[-1] / method.backbone.image_size
            for j in found.there[i].nonzero().flatten().tolist():
                rows = torch.cat([torch.zeros(1), regions.boxes[i, j]])[None]
                mean = roi_align(places, rows, GRID, ratio, sampling_ratio=2, aligned=True).mean((2, 3))
                q = (s * F.normalize(mean, dim=-1) @ words.T).softmax(-1)[0]
                assert method.new[int(q.argmax())] == int(found.labels[i, j])
                score = 0.3 * regions.objectness[i, j] + 0.7 * q.max()
                torch.testing.assert_close(found.weights[i, j], score, rtol=1e-4, atol=1e-5)
    assert found.there[:2].any()


def test_places_in_base_boxes_are_labelled_and_all_others_are_unknown():
    method = P3OVD(toys.backbone(), P3OVD.configure(toys.backbone()))
    method.prepare(_task())
    height, width = method.place_labels.shape[1:]
    for i in range(len(method.granted.boxes)):
        own = method.granted.at(torch.tensor(i))
        shown = {method.base.tolist().index(c) for c in own.labels[own.there].tolist()}
        assert set(method.place_labels[i].unique().tolist()) - {-1} == shown
        for box, label in zip(own.boxes[own.there], own.labels[own.there], strict=True):
            x, y = ((box[k] + box[k + 2]) / 2 for k in (0, 1))
            found = method.place_labels[i, int(y * height / 32), int(x * width / 32)]
            assert method.base[found] == label
    assert (method.place_labels == -1).any()


@pytest.mark.parametrize("adapt", [0, 1])
def test_pseudo_labels_are_of_new_classes_and_off_base_objects(adapt):
    method, _ = fitted(adapt_epochs=adapt, threshold=0.0)
    assert method.pseudo.there.any()
    assert set(method.pseudo.labels[method.pseudo.there].tolist()) <= set(method.new)
    again = method.pseudo.off(method.granted, 0.5)
    assert torch.equal(again.there, method.pseudo.there)
