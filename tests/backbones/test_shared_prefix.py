"""Sharing a prefix between classes changes the cost and nothing else: same features, same gradients."""

from __future__ import annotations

import pytest
import torch

from tests.golden.tiny_clip import CLASSES, tiny_backbone
from vlmlab.errors import VlmlabError

M = 3  # context vectors


@pytest.fixture(scope="module", params=["vit", "asym"])
def text(request):
    return tiny_backbone(request.param).text


def prompts(text):
    """The start token's embedding [1, d], the rest [C, S, d] and the end inside of the rest [C]."""
    tokens = text.tokenize([f"{c}." for c in CLASSES])
    embeddings = text.embed(tokens)
    return embeddings[0, :1], embeddings[:, 1:20].clone(), text.end_of_text(tokens) - 1


def noise(seed, *shape):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found, wanted, tolerance=1e-5):
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= tolerance * wanted.abs().max().clamp_min(1)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("depth", [0, 2])
def test_values_and_gradients_are_those_of_the_full_sequence(text, batched, depth):
    start, rest, end = prompts(text)
    count = 3 if batched else 1
    context = noise(0, count, M, text.width).requires_grad_()
    rest.requires_grad_()
    deep = [noise(j + 1, M, text.width).requires_grad_() for j in range(depth)]
    learned = [context, rest, *deep]
    weight = noise(9, count, len(CLASSES), text.forward(rest, end).shape[-1])

    prefix = torch.cat([start.expand(count, 1, -1), context], 1)
    shared = text.forward_shared_prefix(prefix if batched else prefix[0], rest, end, deep=deep or None)
    assert shared.dim() == (3 if batched else 2)
    by_sharing = torch.autograd.grad((shared.reshape(weight.shape) * weight).sum(), learned)

    sequences = torch.cat([prefix.repeat_interleave(len(CLASSES), 0), rest.repeat(count, 1, 1)], 1)
    full = text.forward(sequences, (end + 1 + M).repeat(count), deep=deep or None).unflatten(0, (count, len(CLASSES)))
    in_full = torch.autograd.grad((full * weight).sum(), learned)

    close(shared.reshape(full.shape), full)
    for found, wanted in zip(by_sharing, in_full, strict=True):
        assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()
        assert wanted.abs().max() > 0


def test_full_sequence_is_open_clips_own(text):
    """The comparison above is with our own `forward`; this ties it to open_clip's layers at the full length."""
    model = text.text
    tokens = text.tokenize([f"a photo of a {c}." for c in CLASSES])
    start, end = text.embed(tokens), text.end_of_text(tokens)
    mixed = start + noise(5, *start.shape)
    x = model.transformer(mixed + model.positional_embedding, attn_mask=model.attn_mask)
    wanted = model.ln_final(x)[torch.arange(len(x)), end] @ model.text_projection
    close(text.forward(mixed, end), wanted)
    close(text.forward_shared_prefix(mixed[0, :1], mixed[:, 1:], end - 1)[:1], wanted[:1])


def test_what_stands_behind_the_end_does_not_matter(text):
    start, rest, end = prompts(text)
    prefix = torch.cat([start, noise(0, M, text.width)])
    other = rest.clone()
    other[torch.arange(rest.shape[1]) > end[:, None]] = 7.0
    assert torch.equal(text.forward_shared_prefix(prefix, rest, end), text.forward_shared_prefix(prefix, other, end))


def test_one_pass_over_the_tower_whatever_the_classes(text):
    """No loop over classes: the number of MLP calls depends on the depth alone."""
    start, rest, end = prompts(text)
    calls = []
    handles = [block.mlp.register_forward_hook(lambda *_: calls.append(1)) for block in text.blocks]
    text.forward_shared_prefix(start, rest.repeat(4, 1, 1), end.repeat(4))
    for handle in handles:
        handle.remove()
    assert len(calls) == 2 * text.depth - 1  # prefix and suffix in each block, the prefix not in the last


def test_prompts_that_do_not_fit_are_refused(text):
    start, rest, end = prompts(text)
    with pytest.raises(VlmlabError, match="exceeds the 77"):
        text.forward_shared_prefix(noise(0, 76, text.width), rest, end)
    with pytest.raises(VlmlabError, match="blocks exceed"):
        text.forward_shared_prefix(start, rest, end, deep=[noise(0, 1, text.width)] * text.depth)
    with pytest.raises(VlmlabError, match="do not fit into a prefix of 1"):
        text.forward_shared_prefix(start, rest, end, deep=[noise(0, M, text.width)])
