"""PromptDet: prompts around name and description, sigmoid scores, the web, and three stages."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, tiny_backbone
from tests.methods.parity import same, same_gradient
from vlmlab.datasets.web import web
from vlmlab.errors import VlmlabError
from vlmlab.learning.fit import fit
from vlmlab.methods.dense.regions import Regions
from vlmlab.methods.detection.promptdet import PRIOR, PromptDet, sigmoid_loss
from vlmlab.testing import toys

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "promptdet.npz")


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name])


def test_the_prompts_their_loss_and_gradient_are_the_release_s():
    method = PromptDet(tiny_backbone("vit"), PromptDet.Config())
    method.table = dict(zip(CLASSES, GOLDEN["descriptions"].tolist(), strict=True))
    method.vectors = torch.nn.Parameter(golden("vectors"))
    method.base_tokens = method.tokens_of(CLASSES)
    method.crops, method.crop_labels = F.normalize(golden("crops"), dim=-1), golden("crop_labels")
    method.crop_images = torch.arange(12)
    same(method.backbone.logit_scale * method.crops @ method.encoded(method.base_tokens).T, GOLDEN["crop_logits"])
    loss = method.prompt_loss(torch.arange(12))
    loss.backward()
    same(loss, GOLDEN["crop_loss"])
    same_gradient(method.vectors.grad, GOLDEN["vectors_gradient"])


def scored() -> tuple[PromptDet, torch.Tensor]:
    """A head with the release's numbers, and the embeddings that it scores."""
    method = PromptDet(toys.backbone(), PromptDet.configure(toys.backbone(), prompt="manual"))
    method.text = F.normalize(golden("text"), dim=-1)
    method.factor, method.bias = (torch.nn.Parameter(golden(name)) for name in ("factor", "bias"))
    assert method.bias.item() == pytest.approx(PRIOR)
    return method, golden("embeddings").requires_grad_()


@pytest.mark.parametrize("kind", ["loss", "web"])
def test_scores_losses_and_gradients_are_the_release_s(kind):
    method, embeddings = scored()
    logits = method.logits_of(embeddings)
    same(logits, GOLDEN["logits"])
    if kind == "loss":
        loss = sigmoid_loss(logits, golden("labels"), golden("base") > 0)
        same(loss, GOLDEN["loss"])
    else:
        met = golden("web_met") > 0
        every = torch.ones(6, dtype=torch.bool)
        loss = sigmoid_loss(logits[met], golden("web_labels")[met], every, len(logits))
        same(loss, GOLDEN["web_loss"])
    loss.backward()
    for name, found in (("embeddings", embeddings), ("factor", method.factor), ("bias", method.bias)):
        same_gradient(found.grad, GOLDEN[f"{kind}_gradient/{name}"])


def test_the_pseudo_box_of_an_image_is_the_release_s(monkeypatch):
    method, _ = scored()
    boxes, scores = golden("image_boxes"), golden("image_scores")
    regions = Regions(torch.zeros(3, 1, 2, 2), boxes, torch.ones(3, 25), torch.ones(3, 25, dtype=torch.bool))
    monkeypatch.setattr(PromptDet, "features", lambda self, maps, boxes: boxes)
    monkeypatch.setattr(PromptDet, "logits_of", lambda self, embeddings: scores[:, :20])
    method.student = torch.nn.Identity()
    box, score = method.best(regions, golden("image_labels"))
    same(box, GOLDEN["pseudo_boxes"])
    same(score, GOLDEN["pseudo_scores"])


def _task():
    return toys.task_for("promptdet").seen_by("open-vocabulary")


SHORT = {"prompt_epochs": 1, "epochs": 1, "self_epochs": 1, "batch_size": 12, "pool": 24, "retrieved": 4}


def test_vectors_learn_first_then_the_head_and_images_of_the_web_last():
    method = PromptDet(toys.backbone(), PromptDet.configure(toys.backbone(), **SHORT))
    moved, searched = [], []

    def look(done, steps, loss):
        moved.append({name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None})
        searched.append(method.found is not None)

    fit(method, _task(), look)
    assert moved == [{"vectors"}, {"student", "factor", "bias"}, {"student", "factor", "bias"}]
    assert searched == [False, False, True]
    whole, small, labels = method.found
    assert len(whole.boxes) == len(small.boxes) == len(labels) == 4 * len(method.new)
    assert (small.boxes <= method.reduced + 1e-3).float().mean() > 0.5


def test_base_columns_alone_learn_from_base_boxes_and_all_from_the_web():
    logits = torch.zeros(2, 4, requires_grad=True)
    columns = torch.tensor([True, True, False, False])
    sigmoid_loss(logits, torch.tensor([1, 4]), columns).backward()
    assert (logits.grad[:, 2:] == 0).all() and (logits.grad[:, :2] != 0).all() and logits.grad[0, 1] < 0


@pytest.mark.parametrize(("settings", "stages"), [({"prompt": "manual"}, 2), ({"self_epochs": 0}, 2), ({}, 3)])
def test_settings_leave_stages_out(settings, stages):
    method = PromptDet(toys.backbone(), PromptDet.configure(toys.backbone(), **{**SHORT, **settings}))
    assert fit(method, _task()).steps == stages


def test_the_web_is_drawn_once_shows_no_labels_and_depends_on_its_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path))
    images, again, other = web(6, 32), web(6, 32), web(6, 32, seed=1)
    assert (images.images() == again.images()).all() and (images.images() != other.images()).any()
    assert images.fingerprint() == again.fingerprint() != other.fingerprint()
    with pytest.raises(VlmlabError, match="hidden"):
        images.labels  # noqa: B018
