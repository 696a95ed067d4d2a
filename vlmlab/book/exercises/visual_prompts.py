"""Exercises of chapter 6.2, visual prompt tuning."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, number, same_shape


def count(p, side):
    inside = side - 2 * p
    return 3 * (side * side - inside * inside)  # the whole image without what the frame leaves alone


@exercise(
    "06_2.count",
    solution=count,
    hints=(
        "The frame is the image without the square inside of it. Three colours each.",
        "An image has `3 * side * side` numbers, and the square that the frame leaves alone has a side of `side - 2 * p`.",
    ),
    seen="For a border of 30 pixels on an image of 224 that is 69,840 numbers, more than eight times a CoOp context for the same CLIP. A prompt of "
    "pixels is large, because each of its numbers reaches one place only.",
)
def _count(answer) -> None:
    for p, side in ((8, 64), (30, 224), (1, 10)):
        given, expected = number(ask(answer, p, side), 0, 1e9, "numbers that are learned"), count(p, side)
        if given == 4 * 3 * p * side:
            raise Wrong("four full strips overlap: each corner of the frame is counted twice.")
        if given * 3 == expected:
            raise Wrong("that counts pixels; a pixel has three colours.")
        if given != expected:
            raise Wrong(f"{given:g} is not it for p = {p} and a side of {side}: draw the frame and count again.")


def grey(pattern, std):
    return 255 * pattern * std[:, None, None]  # undo the division of the normalisation; its mean cancels


@exercise(
    "06_2.grey",
    solution=grey,
    hints=(
        "The pixels were divided by 255, then the mean was taken off, then they were divided by std, channel by channel. What is added "
        "afterwards goes back the same way.",
        "Only differences are asked for, so the mean plays no part: times `std[:, None, None]`, times 255.",
    ),
    seen="With CLIP's std of about 0.27 a prompt of 1 is 68 grey levels. What is learned may leave the range that an image can show, and it is "
    "never clipped.",
)
def _grey(answer) -> None:
    pattern = torch.randn(3, 6, 6, generator=generator(1))
    std = torch.tensor([0.2, 0.3, 0.5])
    expected = grey(pattern, std)
    given = same_shape(ask(answer, pattern, std), expected, "[3, S, S]")
    if torch.allclose(given * 255, expected, atol=1e-3):
        raise Wrong("that is in units of a whole pixel range; grey levels go up to 255.")
    if torch.allclose(given, 255 * pattern / std[:, None, None], atol=1e-3):
        raise Wrong("normalising divides by std, so going back multiplies.")
    close(given, expected, "think of what normalisation did to the pixels, and undo it.", 1e-3)


def _stored():
    """Unit keys [9, 8] and their labels [9], three classes of three."""
    keys = F.normalize(torch.randn(9, 8, generator=generator(3)), dim=-1)
    return keys, torch.arange(3).repeat_interleave(3)


def votes(keys, labels, classes, sharpness):
    cosines = keys @ keys.T  # every stored image asks for its neighbours
    cosines = cosines.masked_fill(torch.eye(len(keys), dtype=torch.bool), float("-inf"))  # itself left out
    return (sharpness * cosines).softmax(-1) @ F.one_hot(labels, classes).float()  # [N, C]


@exercise(
    "06_2.votes",
    solution=votes,
    hints=(
        "Cosines of all keys with all keys, [N, N]. An image must not find itself: what must its own score be, so that its weight is 0 "
        "after the softmax?",
        "Fill the diagonal with `float('-inf')`, take the softmax of `sharpness * cosines` over the last axis, and multiply by the one-hot "
        "labels [N, C].",
    ),
    seen="With itself among its neighbours a training image would vote for its own label with the largest weight: hard images would look easy, "
    "and the prompts would learn to read off a label that no test image carries.",
)
def _votes(answer) -> None:
    keys, labels = _stored()
    expected = votes(keys, labels, 3, 4.0)
    given = same_shape(ask(answer, keys, labels, 3, 4.0), expected, "[N, C]")
    one_hot = F.one_hot(labels, 3).float()
    if torch.allclose(given, (4.0 * keys @ keys.T).softmax(-1) @ one_hot, atol=1e-5):
        raise Wrong("every image found itself, with a cosine of 1; leave the diagonal out before the softmax.")
    zeroed = (4.0 * (keys @ keys.T) * (1 - torch.eye(9))).softmax(-1) @ one_hot
    if torch.allclose(given, zeroed, atol=1e-5):
        raise Wrong("a cosine of 0 still gets a weight in the softmax; the image itself must get none.")
    if not torch.allclose(given.sum(-1), torch.ones(9), atol=1e-4):
        raise Wrong("the votes for an image should sum to 1; is the softmax over the neighbours?")
    close(given, expected, "compare with equations (3) and (4) of the chapter.")


def mixed(logits, votes, share):
    return share * votes + (1 - share) * logits.softmax(-1)


@exercise(
    "06_2.mixed",
    solution=mixed,
    hints=(
        "Only like things can be averaged: the votes are probabilities, so make probabilities of the logits first.",
        "`logits.softmax(-1)` are the classifier's probabilities; a share of 1 must give the votes alone, a share of 0 the classifier alone.",
    ),
    seen="The result is a probability again, whatever the share. A system that is certain and wrong can only be outvoted if the share is large, "
    "so the share belongs to validation images, like every other setting.",
)
def _mixed(answer) -> None:
    logits = 4 * torch.randn(5, 3, generator=generator(4))
    given_votes = torch.randn(5, 3, generator=generator(5)).softmax(-1)
    expected = mixed(logits, given_votes, 0.3)
    given = same_shape(ask(answer, logits, given_votes, 0.3), expected, "[B, C]")
    if torch.allclose(given, 0.3 * given_votes + 0.7 * logits, atol=1e-4):
        raise Wrong("logits and probabilities do not add up: take the softmax of the logits first.")
    if torch.allclose(given, 0.7 * given_votes + 0.3 * logits.softmax(-1), atol=1e-4):
        raise Wrong("the share belongs to the votes, and the rest to the classifier; here it is the other way round.")
    if not torch.allclose(given.sum(-1), torch.ones(5), atol=1e-4):
        raise Wrong("every row should sum to 1.")
    close(given, expected, "compare with equation (6) of the chapter.")
