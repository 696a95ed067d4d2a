import math

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import same, same_gradient
from vlmlab.datasets.captions import noun_filter
from vlmlab.errors import VlmlabError
from vlmlab.learning.fit import fit
from vlmlab.methods.method import Batch
from vlmlab.methods.text_prompt import tai_dp
from vlmlab.methods.text_prompt.tai_dp import TaIDP, ranking_loss

SENTENCES = ["a tabby cat in a sports car", "an oak tree", "an airliner above an oak tree", "golden retrievers"]


@pytest.fixture(scope="module", params=["rn", "vit"])
def backbone(request):
    return tiny_backbone(request.param)


def prepared(backbone, **settings):
    own = task(CLASSES)
    own.captions = lambda count, source: noun_filter(SENTENCES, CLASSES)
    method = TaIDP(backbone, TaIDP.configure(backbone, **({"n_ctx": 4, "templates": "photo"} | settings)))
    method.prepare(own)
    return method


def test_numbers_of_the_official_implementation():
    numbers, backbone = golden("tai_dpt"), tiny_backbone("rn")
    sentences, own = numbers["captions"].tolist(), task(CLASSES)
    own.captions = lambda count, source: noun_filter(sentences, CLASSES)
    method = TaIDP(backbone, TaIDP.configure(backbone, n_ctx=4, templates="photo"))
    method.prepare(own)
    method.whole.data, method.parts.data = (torch.from_numpy(numbers[f"param/{c}"]) for c in ("ctx", "ctx_double"))
    index, labels = torch.arange(len(sentences)), torch.from_numpy(numbers["in/labels"])
    assert torch.equal(method.sentences.labels[index], labels)
    whole, parts, words = method.read(method.tokens[index])
    z_g, z_l = method.scores(whole, parts, method.config.word_scale, words)
    same(z_g, numbers["out/caption_global"])
    same(z_l, numbers["out/caption_local"])
    loss = method.loss(Batch(index=index, labels=labels))
    same(loss, numbers["out/loss"])
    loss.backward()
    same_gradient(method.whole.grad, numbers["grad/ctx"])
    same_gradient(method.parts.grad, numbers["grad/ctx_double"])
    for side, count in ((64, 8), (96, 2)):
        images = noise_images(side, count)
        z_g, z_l = method.scores(*method.look(images), method.config.place_scale)
        same(z_g, numbers[f"out/picture_{side}_global"])
        same(z_l, numbers[f"out/picture_{side}_local"])
        same(method.logits(Batch(images=images)), (z_g + z_l).detach() / 2)


def test_the_ranking_loss_asks_every_pair_for_a_margin():
    z = torch.tensor([[2.0, 0.5, 0.0], [0.0, 0.0, 3.0]], requires_grad=True)
    labels = torch.tensor([[1, 0, 0], [1, 1, 0]])
    # First row: 1 - 2 + .5 and 1 - 2 + 0 are below zero. Second: two pairs of 1 - 0 + 3.
    loss = ranking_loss(z, labels)
    assert float(loss.detach()) == pytest.approx((0 + 8) / 2)
    loss.backward()
    assert z.grad.tolist() == [[0, 0, 0], [-0.5, -0.5, 1.0]]
    assert float(ranking_loss(z.detach(), labels, margin=2.0)) == pytest.approx((0.5 + 0 + 10) / 2)


def test_captions_are_scored_by_the_equations(backbone):
    method = prepared(backbone)
    index = torch.tensor([0, 2])
    labels = method.sentences.labels[index]
    text = backbone.text
    w_g, w_l = (F.normalize(method.prompts.features(text, c), dim=-1) for c in (method.whole, method.parts))
    total = 0
    for i, row in zip(index.tolist(), labels, strict=True):
        tokens = text.tokenize([method.sentences.sentences[i]])
        end = int(text.end_of_text(tokens))
        words = F.normalize(text.local_features(tokens[:, : end + 1])[0], dim=-1)  # without padding
        c = words @ w_l.T
        z_l = 4 * ((50 * c).softmax(0) * c).sum(0)
        z_g = 4 * F.normalize(text.encode(tokens), dim=-1)[0] @ w_g.T
        total = total + ranking_loss(z_g[None], row[None]) + ranking_loss(z_l[None], row[None])
    same(method.loss(Batch(index=index, labels=labels)), (total / 2).detach())


def test_the_end_token_s_own_feature_is_the_sentence_s(backbone):
    text = backbone.text
    tokens = text.tokenize(SENTENCES)
    every = text.local_features(tokens)
    same(every[torch.arange(4), text.end_of_text(tokens)], text.encode(tokens))


def test_features_that_are_kept_are_those_that_are_made_anew(backbone, monkeypatch):
    kept = prepared(backbone)
    monkeypatch.setattr(tai_dp, "KEPT", 0)
    anew = prepared(backbone)
    assert kept.kept is not None and anew.kept is None
    batch = Batch(index=torch.arange(4), labels=kept.sentences.labels[:4])
    same(kept.loss(batch), anew.loss(batch).detach())


def test_a_picture_takes_the_place_of_a_caption(backbone):
    method = prepared(backbone)
    images = noise_images(backbone.image_size)
    whole, places = method.look(images)
    z_g, z_l = method.scores(whole, places, 40.0)
    same(method.logits(Batch(images=images)), ((z_g + z_l) / 2).detach())
    c = places @ method.class_features(method.parts).T
    same(z_l, (4 * ((40 * c).softmax(1) * c).sum(1)).detach())
    if backbone.image.kind == "resnet":  # as in the release, without the pool's positions
        assert not torch.allclose(whole, F.normalize(backbone.encode_image(images), dim=-1), atol=1e-3)
    same(places.norm(dim=-1), torch.ones(places.shape[:2]))


def test_only_the_two_contexts_learn_and_other_classes_keep_them(backbone):
    method = prepared(backbone)
    method.loss(Batch(index=torch.arange(4), labels=method.sentences.labels[:4])).backward()
    assert {n for n, _ in method.named_parameters()} == {"whole", "parts"}
    assert method.whole.grad.abs().max() > 0 and method.parts.grad.abs().max() > 0
    assert all(p.grad is None for p in backbone.parameters())
    before = method.whole.detach().clone()
    method.set_classes(CLASSES[:2], ["{}"])
    assert torch.equal(method.whole, before)
    assert method.logits(Batch(images=noise_images(backbone.image_size))).shape == (8, 2)


def test_it_is_fitted_without_a_picture():
    backbone = tiny_backbone("vit")
    own = task(CLASSES)
    own.captions = lambda count, source: noun_filter(SENTENCES * 8, CLASSES)
    own.support = None  # a look at it would raise
    settings = {"n_ctx": 4, "templates": "photo", "epochs": 12, "batch_size": 32, "optimizer": "adamw", "lr": 0.02}
    method = TaIDP(backbone, TaIDP.configure(backbone, **settings))
    record = fit(method, own)
    assert len(record.losses) == 24 and sum(record.losses[-4:]) < 0.9 * sum(record.losses[:4])


@pytest.mark.parametrize("loss", ["sigmoid", "asl"])
def test_the_other_losses_are_the_release_s(loss):
    numbers, backbone = golden("tai_dpt_losses"), tiny_backbone("vit")
    z = torch.from_numpy(numbers["in/z"]).requires_grad_()
    found = prepared(backbone, loss=loss).loss_of(z, torch.from_numpy(numbers["in/labels"]))
    found.backward()
    same(found, numbers[f"out/{loss}"])
    same_gradient(z.grad, numbers[f"grad/{loss}"])


def test_contexts_of_the_classes_own_start_as_different_ones_and_stay_with_their_classes(backbone):
    method, shared = prepared(backbone, csc=True), prepared(backbone)
    assert method.whole.shape == (len(CLASSES), 4, backbone.text.width)
    method.whole.data = shared.whole.data.expand_as(method.whole).clone()
    same(method.class_features(method.whole), shared.class_features(shared.whole).detach().numpy())
    with pytest.raises(VlmlabError, match="csc=false"):
        method.set_classes(CLASSES[:2], method.templates)


def test_learned_factors_start_at_the_exponential_of_three_and_learn(backbone):
    method = prepared(backbone, learn_scale=True, learn_t=True)
    plain = prepared(backbone, scale=math.exp(3), word_scale=math.exp(3))
    batch = Batch(index=torch.arange(4), labels=method.sentences.labels[:4])
    loss = method.loss(batch)
    same(loss, plain.loss(batch).detach().numpy())
    loss.backward()
    assert method.log_scale.grad.abs() > 0 and method.log_t.grad.abs() > 0
    assert len(list(method.parameters())) == 4 and len(list(plain.parameters())) == 2
