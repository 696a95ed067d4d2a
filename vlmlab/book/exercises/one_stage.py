"""Exercises of chapter 7.2b, one stage."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, same_shape


def descriptor(image, words):
    return torch.cat([image[:, None] * words, words.expand(len(image), -1, -1)], -1)


@exercise(
    "07_2b.descriptor",
    solution=descriptor,
    hints=(
        "Two halves for each image and word: the entries of both multiplied one by one, and the word itself.",
        "`image[:, None] * words` is [B, C, e]; `words.expand(len(image), -1, -1)` is the word for every image; `torch.cat` along the last axis.",
    ),
    seen="The product is not a cosine but its summands: which entries word and image share. A word that has nothing to do with the image asks "
    "differently from one that has, and that carries over to words that were never taught.",
)
def _descriptor(answer) -> None:
    image = F.normalize(torch.randn(2, 6, generator=generator(1)), dim=-1)
    words = F.normalize(torch.randn(4, 6, generator=generator(2)), dim=-1)
    expected = descriptor(image, words)
    given = same_shape(ask(answer, image, words), expected, "[B, C, 2 e]")
    product, alone = image[:, None] * words, words.expand(2, -1, -1)
    if torch.allclose(given, torch.cat([alone, product], -1), atol=1e-6):
        raise Wrong(
            "the halves are in the other order: the product comes first, and given weights would be read wrongly."
        )
    if torch.allclose(given, torch.cat([product, image[:, None].expand(-1, 4, -1)], -1), atol=1e-6):
        raise Wrong("the second half is the image; it should be the word.")
    if torch.allclose(given, torch.cat([image[:, None].expand(-1, 4, -1), alone], -1), atol=1e-6):
        raise Wrong("image and word side by side are not multiplied: a linear layer could only add what each says.")
    close(given, expected, "compare with equation (3) of the chapter.", 1e-5)


def film(tokens, prompts, mul, add):
    return tokens * (prompts @ mul.T)[:, None] + (prompts @ add.T)[:, None]


@exercise(
    "07_2b.film",
    solution=film,
    hints=(
        "The prompt makes two vectors of width d, one to multiply with and one to add, the same at all tokens of its image.",
        "`prompts @ mul.T` is [B, d]; give it an axis for the tokens with `[:, None]`.",
    ),
    seen="That is all that the decoder hears of the prompt. It does not ask whether the vector came from a sentence or from an image, so both do.",
)
def _film(answer) -> None:
    tokens, prompts = torch.randn(3, 5, 4, generator=generator(3)), torch.randn(3, 6, generator=generator(4))
    mul, add = torch.randn(4, 6, generator=generator(5)), torch.randn(4, 6, generator=generator(6))
    expected = film(tokens, prompts, mul, add)
    given = same_shape(ask(answer, tokens, prompts, mul, add), expected, "[B, T, d]")
    if torch.allclose(given, film(tokens, prompts, add, mul), atol=1e-4):
        raise Wrong("the matrices are exchanged: `mul` multiplies, `add` adds.")
    if torch.allclose(given, (tokens + (prompts @ add.T)[:, None]) * (prompts @ mul.T)[:, None], atol=1e-4):
        raise Wrong("it was added before multiplying; (4) multiplies first.")
    if torch.allclose(given, tokens * (1 + (prompts @ mul.T)[:, None]) + (prompts @ add.T)[:, None], atol=1e-4):
        raise Wrong("one too many: the tokens are multiplied by the prompt's vector, not by one plus it.")
    close(given, expected, "compare with equation (4) of the chapter.")


def calibrated(scores, seen, offset):
    lowered = scores.clone()
    lowered[:, seen] -= offset
    return lowered.argmax(1)


@exercise(
    "07_2b.calibrated",
    solution=calibrated,
    hints=(
        "The scores of the seen classes lose the offset; then each pixel takes the best class, as before.",
        "Work on `scores.clone()`, subtract at `[:, seen]`, and `argmax(1)` over the classes.",
    ),
    seen="One number moves pixels from seen to unseen classes, and no training is involved. Chosen on the unseen classes of test images it is an "
    "oracle; a fixed rule or seen classes of validation images have to give it.",
)
def _calibrated(answer) -> None:
    scores = torch.randn(2, 5, 4, 4, generator=generator(7))
    seen = torch.tensor([0, 2, 3])
    scores[:, seen] += 0.6
    expected, before = calibrated(scores, seen, 0.8), scores.clone()
    given = same_shape(ask(answer, scores, seen, 0.8), expected, "[B, H, W]")
    if not torch.equal(scores, before):
        raise Wrong("the scores themselves were changed; the next offset would come on top. Work on a copy.")
    if torch.equal(given, scores.argmax(1)):
        raise Wrong("nothing changed: an offset for all classes does not move the best one; only seen classes lose it.")
    if torch.equal(given, calibrated(scores, seen, -0.8)):
        raise Wrong("the other way round: seen classes, which are too sure, should lose the offset against the others.")
    close(given.float(), expected.float(), "seen classes less the offset, then the best class of every pixel.")
