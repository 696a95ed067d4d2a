import types

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import same
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.text_prompt.coop import CoOp
from vlmlab.methods.text_prompt.upl import UPL, surest

LABELS = torch.arange(8) % 5


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


def prepared(backbone, **settings):
    method = UPL(backbone, UPL.configure(backbone, **({"n_ctx": 4, "ensemble": 3} | settings)))
    method.prepare(task(CLASSES))
    return method


def test_the_surest_of_each_class_are_taken():
    confidence = torch.tensor([0.9, 0.2, 0.8, 0.7, 0.95, 0.3])
    labels = torch.tensor([0, 0, 0, 2, 2, 2])
    assert surest(confidence, labels, 4, 2).tolist() == [0, 2, 4, 3]
    assert surest(confidence, labels, 4, 1).tolist() == [0, 4]
    assert sorted(surest(confidence, labels, 4, 99).tolist()) == list(range(6))


def test_the_surest_are_found_among_many_pictures_and_classes():
    generator = torch.Generator().manual_seed(0)
    labels, confidence = torch.randint(0, 50, (5000,), generator=generator), torch.rand(5000, generator=generator)
    labels[labels == 7] = 8  # nobody's class
    expected = [
        of_class[confidence[of_class].argsort(descending=True)][:16]
        for of_class in ((labels == c).nonzero().flatten() for c in range(50))
    ]
    assert torch.equal(surest(confidence, labels, 50, 16), torch.cat(expected))


def test_each_context_has_the_gradient_that_it_would_have_alone(backbone):
    method, batch = prepared(backbone), Batch(features=backbone.encode_image(noise_images(32)), labels=LABELS)
    method.loss(batch).backward()
    coop = CoOp(backbone, CoOp.configure(backbone, n_ctx=4))
    coop.prepare(task(CLASSES))
    for r in range(3):
        coop.context.data = method.context.data[r].clone()
        coop.zero_grad()
        coop.loss(batch).backward()
        same(method.context.grad[r], coop.context.grad)
        same(method.all_logits(batch)[r].detach(), coop.logits(batch).detach())
    same(method.logits(batch), method.all_logits(batch).mean(0).detach())


def test_labels_are_those_of_zero_shot_prediction_and_the_task_s_are_never_read(backbone):
    from vlmlab.datasets.image_set import ArrayPictures, ImageSet

    pixels = torch.randint(
        0, 256, (12, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    ).numpy()
    hidden = ImageSet(ArrayPictures(lambda: pixels, "noise"), [0] * 12, [str(i) for i in range(12)]).unlabelled()
    method = prepared(backbone, top=2)
    chosen = method.learns_from(types.SimpleNamespace(unlabelled=hidden))
    f = F.normalize(method.encode(hidden), dim=-1)
    p = (backbone.logit_scale * f @ method.zero_shot.T).softmax(-1)
    expected = {str(i): int(p[i].argmax()) for i in range(12)}
    assert [expected[i] for i in chosen.ids] == chosen.labels.tolist()
    assert max(torch.bincount(chosen.labels).tolist()) <= 2
    with pytest.raises(VlmlabError, match="unlabelled training images"):
        method.learns_from(types.SimpleNamespace(unlabelled=hidden.subset([])))
