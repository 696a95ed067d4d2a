"""DetPro: graded groups, the loss of contexts, their ensemble, and what learns when."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.methods.parity import same, same_gradient
from vlmlab.errors import VlmlabError
from vlmlab.learning.fit import fit
from vlmlab.methods.detection.detpro import BACKGROUND, DetPro, class_weights, ensemble, graded_loss, grouped
from vlmlab.testing import toys

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "detpro.npz")
BOUNDS = [0.5, 0.6, 0.7, 0.8, 0.9]


def regions() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings, labels among base classes with their number for background, and groups, of the golden regions that are
    of a base class or background."""
    features, labels, ious = (torch.from_numpy(GOLDEN[name]) for name in ("features", "labels", "ious"))
    base = torch.from_numpy(GOLDEN["base"])
    place = torch.full((int(labels.max()) + 1,), -1)
    place[base] = torch.arange(len(base))
    group = grouped(ious, BOUNDS)
    group[place[labels] < 0] = -1
    group[(ious >= BACKGROUND[0]) & (ious < BACKGROUND[1])] = len(BOUNDS)
    return features, place[labels].masked_fill(group == len(BOUNDS), len(base)), group


@pytest.mark.parametrize("g", range(5))
def test_a_group_s_loss_and_gradient_are_the_release_s(g):
    features, labels, group = regions()
    own = (group == g) | (group == len(BOUNDS))
    assert [(group == g).sum(), (group == len(BOUNDS)).sum()] == GOLDEN[f"count{g}"].tolist()
    weights = class_weights(group, labels, len(BOUNDS), 5)[g]
    same(1 / weights, GOLDEN[f"frequency{g}"])
    words = torch.from_numpy(GOLDEN[f"text{g}"]).requires_grad_()
    logits = features[own] @ torch.nn.functional.normalize(words, dim=-1).T / 0.01
    loss = graded_loss(logits, labels[own], weights)
    loss.backward()
    same(loss, GOLDEN[f"loss{g}"])
    same_gradient(words.grad, GOLDEN[f"gradient{g}"])


def test_the_ensemble_is_the_release_s():
    same(ensemble(torch.stack([torch.from_numpy(GOLDEN[f"text{g}"]) for g in range(5)])), GOLDEN["ensemble"])


def test_groups_begin_at_their_bound():
    assert grouped(torch.tensor([0.49, 0.5, 0.69, 0.7, 1.0]), [0.5, 0.7]).tolist() == [-1, 0, 0, 1, 1]
    for wrong in ("0.5 0.4", "0.3", "1", "half", ""):
        with pytest.raises(VlmlabError, match="bounds"):
            DetPro(toys.backbone(), DetPro.configure(toys.backbone(), bounds=wrong)).prepare(_task())


def _task():
    return toys.task_for("detpro").seen_by("open-vocabulary")


def test_contexts_learn_first_and_heads_with_the_words_that_came_of_it():
    method = DetPro(toys.backbone(), DetPro.configure(toys.backbone(), epochs=1, context_epochs=1, batch_size=6))
    seen = []

    def look(done, steps, loss):
        moved = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}
        seen.append((moved, method.text.clone()))

    fit(method, _task(), look)
    assert [moved for moved, _ in seen] == [{"context"}] * 2 + [{"text_head", "image_head", "classifier"}] * 2
    words = [text for _, text in seen]
    assert not torch.equal(words[0], words[1]) and torch.equal(words[1], words[3])
    assert torch.equal(method.base_text, method.text[method.base])


def test_a_prompt_by_hand_is_vild():
    method = DetPro(toys.backbone(), DetPro.configure(toys.backbone(), epochs=1, hand="a photo of a {} in the scene."))
    fit(method, _task())
    assert "context" not in dict(method.named_parameters())
    expected = toys.backbone().class_embeddings(method.classes, ["a photo of a {} in the scene."])
    torch.testing.assert_close(method.text, expected)


def test_background_pulls_the_words_towards_being_equally_wrong():
    logits = torch.tensor([[2.0, 0.0]], requires_grad=True)
    graded_loss(logits, torch.tensor([2]), torch.ones(3)).backward()
    assert logits.grad[0, 0] > 0 and logits.grad[0, 1] < 0  # the larger falls, the smaller rises
