"""PB-OVD: maps, coverage, the words of captions, and two stages."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden.tiny_clip import tiny_backbone
from tests.methods.parity import same, same_gradient
from vlmlab.errors import VlmlabError
from vlmlab.learning.fit import fit
from vlmlab.methods.dense.student import weighted_cross_entropy
from vlmlab.methods.detection.pb_ovd import PBOVD, attended, covered, rank
from vlmlab.testing import toys

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "pb_ovd.npz")


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name])


def test_the_map_of_a_word_is_the_release_s():
    attention, gradient = (golden(name)[:, :, 1:].transpose(0, 1) for name in ("attention", "gradient"))
    same(attended(attention, gradient).unflatten(1, (4, 4)), GOLDEN["maps"])


def test_the_score_of_every_proposal_is_the_release_s():
    maps, boxes = golden("maps"), golden("boxes")
    found = covered(maps, boxes.expand(len(maps), -1, -1), int(GOLDEN["side"]))
    same(found, GOLDEN["scores"])
    same(boxes[found.argmax(1)], GOLDEN["best"])
    assert (found == -1).any(0).tolist() == [False] * 7 + [True] * 2  # one leaves the image, one has no area


def test_the_loss_is_the_release_s_with_background_last():
    logits = golden("logits")
    logits = torch.cat([logits[:, 1:], logits[:, :1]], 1).requires_grad_()
    labels = (golden("labels") - 1) % logits.shape[1]
    loss = weighted_cross_entropy(logits, labels, torch.ones(len(labels)), 0.2)
    loss.backward()
    same(loss, GOLDEN["loss"])
    gradient = GOLDEN["logits_gradient"]
    same_gradient(logits.grad, np.concatenate([gradient[:, 1:], gradient[:, :1]], 1))


def test_a_word_s_rank_counts_within_its_image():
    assert rank(torch.tensor([[0, 4], [2, 1], [2, 3], [2, 5], [7, 0]])).tolist() == [0, 0, 1, 2, 0]


def _task():
    return toys.task_for("pb_ovd").seen_by("open-vocabulary")


@pytest.mark.parametrize("maps", ["attention", "patches", "random", "largest"])
def test_every_word_of_a_caption_gets_a_proposal_of_its_image(maps):
    method = PBOVD(toys.backbone(), PBOVD.configure(toys.backbone(), maps=maps))
    method.prepare(_task())
    images = _task().train
    for i in range(len(images)):
        own = method.pseudo.at(torch.tensor(i))
        said = {c for c, name in enumerate(method.classes) if f"a {name}" in images.caption(i)}
        assert sorted(own.labels[own.there].tolist()) == sorted(said)
        for box in own.boxes[own.there]:
            assert (method.regions.boxes[i] == box).all(1).any()
    if maps == "largest":
        sizes = (method.regions.boxes[..., 2:] - method.regions.boxes[..., :2]).prod(-1)
        chosen = (method.pseudo.boxes[..., 2:] - method.pseudo.boxes[..., :2]).prod(-1)
        assert torch.equal(chosen[:, 0], sizes.masked_fill(~method.regions.there, 0).amax(1))


def test_pretraining_learns_all_of_the_head_and_finetuning_all_but_its_last_layer():
    method = PBOVD(
        toys.backbone(), PBOVD.configure(toys.backbone(), epochs=1, finetune_epochs=1, batch_size=12, background=1.0)
    )
    moved = []

    def look(done, steps, loss):
        moved.append({name for name, p in method.named_parameters() if p.grad is not None})

    fit(method, _task(), look)
    assert moved[0] - moved[1] == {"student.project.weight", "student.project.bias"}
    assert moved[1] == moved[0] - {"student.project.weight", "student.project.bias"} and moved[1]


def test_images_without_captions_and_towers_without_attention_are_refused():
    with pytest.raises(VlmlabError, match=r"no attention blocks.*--set maps=patches"):
        PBOVD(tiny_backbone("rn"))
    task = _task()
    task._train._caption, before = None, task._train._caption
    try:
        with pytest.raises(VlmlabError, match="captions"):
            PBOVD(toys.backbone(), PBOVD.configure(toys.backbone())).prepare(task)
    finally:
        task._train._caption = before


def test_maps_from_the_disk_are_those_that_are_computed(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path))
    boxes = []
    for _ in range(2):
        method = PBOVD(toys.backbone(), PBOVD.configure(toys.backbone()))
        method.prepare(_task())
        boxes.append(method.pseudo.boxes)
    assert torch.equal(*boxes) and list(tmp_path.rglob("*.safetensors"))
