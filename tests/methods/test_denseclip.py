import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import of_variant, same, same_gradient
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.text_prompt.denseclip import DenseCLIP, pixel_loss

SMALL = {"n_ctx": 8, "width": 32, "layers": 2, "channels": 8, "dropout": 0.0}


@pytest.fixture(scope="module", params=["rn", "vit"])
def backbone(request):
    return tiny_backbone(request.param)


def prepared(backbone, **settings):
    method = DenseCLIP(backbone, DenseCLIP.configure(backbone, **(SMALL | settings)))
    method.prepare(task(CLASSES))
    return method


def batch(backbone, count=2):
    side = backbone.image_size
    masks = torch.randint(0, len(CLASSES), (count, side, side), generator=torch.Generator().manual_seed(0))
    masks[:, :4] = 255
    return Batch(images=noise_images(side, count), masks=masks)


def official(method):
    """Puts the stored parameters in."""
    numbers = golden("denseclip")
    method.contexts.data = torch.from_numpy(numbers["param/contexts"])[0]
    method.gamma.data = torch.from_numpy(numbers["param/gamma"])
    state = {
        k.removeprefix("param/context_decoder."): torch.from_numpy(v)
        for k, v in numbers.items()
        if "param/context_decoder" in k
    }
    method.context_decoder.load_state_dict(state)
    return numbers


def test_numbers_of_the_official_implementation():
    method = prepared(tiny_backbone("rn"))
    numbers = official(method)
    maps, g, v = method.look(noise_images(64, 4))
    same(maps[3], numbers["mid/layer4"])
    same(g, numbers["mid/global_feature"])
    same(v, numbers["mid/local_feature"])
    same(method.text_features(), numbers["mid/text_embeddings_before_context_decoder"][0])
    memory = torch.cat([g[:, None], v.flatten(2).transpose(1, 2)], 1)
    t = method.text_features().expand(4, -1, -1)
    refined = method.context_decoder(t, memory)
    same(refined, numbers["mid/context_decoder_output"])
    same(t + method.gamma * refined, numbers["out/text_embeddings"])
    scores = method.score_maps(g, v)
    same(scores, numbers["out/score_map"])
    masks = torch.from_numpy(numbers["in/gt_semantic_seg"])[:, 0].long()
    masks[:, :4] = 255  # in the reference run the first rows are unknown
    loss = 0.4 * pixel_loss(scores / 0.07, masks)
    same(loss, numbers["out/identity_loss_weight0.4"])
    loss.backward()
    same_gradient(method.contexts.grad[None], numbers["grad/contexts"])
    same_gradient(method.gamma.grad, numbers["grad/gamma"])
    own = dict(method.context_decoder.named_parameters())
    stored = {k.removeprefix("grad/context_decoder."): v for k, v in numbers.items() if "grad/context_decoder" in k}
    assert set(own) == set(stored)
    for name, gradient in stored.items():
        same_gradient(own[name].grad, gradient)


def test_positions_of_the_pool_follow_the_picture_s_size_as_in_the_release():
    method = prepared(tiny_backbone("rn"))
    numbers = of_variant(official(method), "res96")
    _, g, v = method.look(noise_images(96, 2))
    same(method.score_maps(g, v), numbers["out/score_map"])


def test_prompts_are_learned_vectors_before_the_name_without_a_full_stop(backbone):
    method = prepared(backbone)
    text = backbone.text
    tokens = text.tokenize(CLASSES)
    sequence = text.embed(tokens)
    sequence = torch.cat([sequence[:, :1], method.contexts.expand(5, -1, -1), sequence[:, 1:69]], 1)
    same(method.text_features(), text.forward(sequence, text.end_of_text(tokens) + 8).detach())


@pytest.mark.parametrize("variant", ["vit_32", "vit_48", "asym_32", "asym_48"])
def test_numbers_of_the_official_vit(variant):
    """Positions are resized bilinearly, and the class embedding is added twice."""
    name, side = variant.split("_")
    method, numbers = prepared(tiny_backbone(name)), of_variant(golden("denseclip_vit"), variant)
    noise = np.random.Generator(np.random.PCG64(1)).standard_normal((2, 3, int(side), int(side)))
    maps, g, v = method.look(torch.from_numpy(noise.astype(np.float32)))
    same(g, numbers["mid/global_feature"])
    same(v, numbers["mid/local_feature"])
    h = int(side) // 8
    assert [m.shape[-1] for m in maps] == [4 * h, 2 * h, h, h // 2]


def test_the_loss_is_that_of_the_head_and_of_the_scores(backbone):
    method, one = prepared(backbone), batch(backbone)
    logits, scores = method.both(one.images)
    expected = 0
    for maps, weight in ((logits, 1.0), (scores / 0.07, 0.4)):
        large = F.interpolate(maps, size=one.masks.shape[-2:], mode="bilinear")
        known = F.cross_entropy(large, one.masks, ignore_index=255, reduction="sum")
        expected = expected + weight * known / one.masks.numel()
    same(method.loss(one), expected.detach())
    same(method.logits(one), F.interpolate(logits, size=one.images.shape[-2:], mode="bilinear").detach())


def test_everything_but_the_text_encoder_learns(backbone):
    method, one = prepared(backbone), batch(backbone)
    method.loss(one).backward()
    silent = [n for n, p in method.named_parameters() if p.grad is None or not p.grad.abs().max()]
    # The pooled token of a ViT's last block and the bias of keys have no effect; nothing of the parts that are new is silent.
    assert not [n for n in silent if not n.startswith("visual.")] and len(silent) < 8
    assert all(p.grad is None for p in backbone.parameters())


def test_a_frozen_encoder_is_the_backbone_itself_and_learns_nothing(backbone):
    method = prepared(backbone, encoder_rate=0.0)
    assert not [n for n, _ in method.named_parameters() if n.startswith("visual")]
    assert method.tower[0] is backbone.image
    method.loss(batch(backbone)).backward()
    assert all(p.grad is None for p in backbone.parameters())


def test_without_language_it_is_the_same_network_with_fewer_channels(backbone):
    plain, guided = prepared(backbone, guided=False), prepared(backbone)
    i = guided.joined
    assert guided.neck.lateral[i].in_channels == plain.neck.lateral[i].in_channels + len(CLASSES)
    assert not [n for n, _ in plain.named_parameters() if n.startswith(("contexts", "gamma", "context_decoder"))]
    plain.loss(batch(backbone)).backward()


def test_rates_and_decay_belong_to_their_groups(backbone):
    method = prepared(backbone, lr=1e-3, least_lr=1e-5, warmup_steps=10, weight_decay=0.5)
    optimizer, schedule = method.optimizer(100)
    for _ in range(20):
        optimizer.step()
        schedule.step()
    encoder = {id(p) for p in method.visual.parameters()}
    for group in optimizer.param_groups:
        of_encoder = {id(p) in encoder for p in group["params"]}
        assert len(of_encoder) == 1
        # As mmcv's "poly": every group ends at the same least rate, whatever it starts from.
        rate = 1e-4 if of_encoder.pop() else 1e-3
        assert group["lr"] == pytest.approx((rate - 1e-5) * 0.8**0.9 + 1e-5)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay[id(method.context_decoder.decoder[0].norm1.weight)] == 0 and decay[id(method.gamma)] == 0.5
    assert decay[id(method.context_decoder.out_proj[0].weight)] == 0.5  # a norm, but not called so in the release
    # mmcv's linear warm-up with a ratio of 1e-6: at step i of 10, 1 - (1 - i / 10) (1 - 1e-6) of the rate.
    assert method.learning_rate(0, 100) == pytest.approx(1e-9)
    assert method.learning_rate(5, 100) == pytest.approx(0.5 * (9.9e-4 * 0.95**0.9 + 1e-5), rel=1e-5)


def test_dropout_is_for_learning_only(backbone):
    method, one = prepared(backbone, dropout=0.5), batch(backbone)
    method.gamma.data.fill_(1.0)
    assert torch.equal(method.logits(one), method.logits(one))
    first, second = (method.both(one.images, training=True) for _ in range(2))
    assert not torch.equal(first[1], second[1])  # score maps, by the context decoder
    method.context_decoder.forward = lambda text, visual, training: text
    first, second = (method.both(one.images, training=True) for _ in range(2))
    assert torch.equal(first[1], second[1]) and not torch.equal(first[0], second[0])  # by the head itself


def test_what_it_cannot_do_is_told_in_a_line(backbone):
    method = prepared(backbone)
    with pytest.raises(VlmlabError, match="belongs to its classes"):
        method.set_classes(CLASSES[:2], ["{}"])
    with pytest.raises(VlmlabError, match="images with masks"):
        method.loss(Batch(images=noise_images(backbone.image_size, 1)))
