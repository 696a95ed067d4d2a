"""TCP: the official numbers and gradients, where its tokens enter, and new names."""

import pytest
import torch

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import learned, same, same_gradients
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.text_prompt.tcp import TCP

OFFICIAL = {
    "context": "ctx", "inner.weight": "linear1.weight", "inner.bias": "linear1.bias", "outer.weight": "linear2.weight",
    "outer.bias": "linear2.bias",
}  # fmt: skip


@pytest.fixture
def method():
    backbone = tiny_backbone("asym")
    built = TCP(backbone, TCP.configure(backbone))
    built.prepare(task(CLASSES))
    return built


def test_the_numbers_and_gradients_are_those_of_the_official_implementation(method):
    numbers = golden("tcp")
    values = learned(numbers)
    method.load_state_dict({own: values[name] for own, name in OFFICIAL.items()})
    assert method.block == 2  # of three blocks, as eight of twelve
    same(method.written, numbers["written"])
    same(method.tokens(), numbers["tokens"])
    same(method.class_features(), numbers["class_features"])
    batch = Batch(features=method.backbone.encode_image(noise_images(32)), labels=torch.arange(8) % 5)
    same(method.logits(batch), numbers["logits"])
    loss = method.loss(batch)
    same(loss, numbers["loss"])
    loss.backward()
    same_gradients({OFFICIAL[name]: p.grad for name, p in method.named_parameters()}, numbers)


def test_the_context_is_forgotten_behind_the_block_but_for_what_others_read_of_it(method):
    with torch.no_grad():
        before = method.class_features()
        method.outer.bias += 1
        assert not torch.allclose(method.class_features(), before)
        method.outer.bias -= 1
        method.context += 1
        assert not torch.allclose(method.class_features(), before)


def test_new_names_get_tokens_of_their_own(method):
    tokens = method.tokens()
    method.set_classes([CLASSES[3], "steam engine"], ["a photo of a {}."])
    torch.testing.assert_close(method.tokens()[0], tokens[3])
    assert not torch.allclose(method.tokens()[1], method.tokens()[0])


def test_a_block_that_the_tower_does_not_have_is_refused():
    backbone = tiny_backbone("asym")
    with pytest.raises(VlmlabError, match="block 7"):
        TCP(backbone, TCP.configure(backbone, block=7)).prepare(task(CLASSES))
