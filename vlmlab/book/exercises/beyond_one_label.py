"""Exercises of chapter 6.1c, beyond one label."""

from __future__ import annotations

import re

import torch

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, number, same_shape


def asymmetric(p, y, gamma_pos, gamma_neg, clip):
    q = (1 - p + clip).clamp(max=1)  # how sure it is that the class is absent, shifted up
    log = torch.where(y == 1, p.log(), q.log())
    with torch.no_grad():  # the factors weigh, and teach nothing themselves
        factor = torch.where(y == 1, (1 - p) ** gamma_pos, (1 - q) ** gamma_neg)
    return -(factor * log)[y != -1].sum()


def _factors_that_learn(p, y, gamma_pos, gamma_neg, clip):
    """The same number with the factors left in the gradient: the mistake that the number does not show."""
    q = (1 - p + clip).clamp(max=1)
    there, absent = (1 - p) ** gamma_pos * p.log(), (1 - q) ** gamma_neg * q.log()
    return -torch.where(y == 1, there, absent)[y != -1].sum()


@exercise(
    "06_1c.asymmetric",
    solution=asymmetric,
    hints=(
        "Two logarithms: log p where the class is there, log q where it is not, with q = min(1 - p + clip, 1). Each has a factor in front.",
        "The factors are (1 - p) to the power gamma_pos, and (1 - q) to the power gamma_neg, both computed under `torch.no_grad()`. Then keep "
        "only entries with `y != -1`, sum, and change the sign.",
    ),
    seen="An absence that is already sure (p below the clip) costs exactly nothing. Without that, an image with two classes of forty would "
    "be taught thirty-eight absences at every step.",
)
def _asymmetric(answer) -> None:
    p = torch.rand(5, 6, generator=generator(1)) * 0.9 + 0.04
    y = torch.randint(-1, 2, (5, 6), generator=generator(2))
    expected = asymmetric(p, y, 1.0, 2.0, 0.05)
    given = same_shape(ask(answer, p.clone(), y.clone(), 1.0, 2.0, 0.05), expected, "[] (one number)")
    for wrong, message in (
        (
            asymmetric(p, y.clamp(min=0), 1.0, 2.0, 0.05),
            "unknown labels (-1) count as absent: leave them out of the sum.",
        ),
        (
            asymmetric(p, y, 0.0, 0.0, 0.05),
            "that is plain cross-entropy: the focusing factors in front of the logarithms are missing.",
        ),
        (asymmetric(p, y, 1.0, 2.0, 0.0), "the clip is missing: q = min(1 - p + clip, 1)."),
        (expected / (y != -1).sum(), "it is a mean: the loss is a sum over images and classes."),
        (-expected, "the sign is wrong: logarithms of probabilities are negative."),
    ):
        if torch.allclose(given, wrong, rtol=1e-4):
            raise Wrong(message)
    close(given, expected, "compare with the formula, term by term.")
    wide = same_shape(ask(answer, p.clone(), y.clone(), 1.0, 2.0, 0.4), expected, "[] (one number)")
    close(
        wide, asymmetric(p, y, 1.0, 2.0, 0.4), "with a larger clip q must still be at most 1: q = min(1 - p + clip, 1)."
    )
    wanted, learning = (_gradient(loss, p, y) for loss in (asymmetric, _factors_that_learn))
    gradient = _gradient(answer, p, y)
    if torch.allclose(gradient, learning, rtol=1e-4, atol=1e-6):
        raise Wrong(
            "the number is right, but the factors get a gradient, too: compute them under `torch.no_grad()` (4)."
        )
    close(gradient, wanted, "that is the gradient of p; the number itself is right.")


def _gradient(loss, p, y):
    """What `loss` teaches `p`; `Wrong` if it is a number that nothing can be learned from."""
    p = p.clone().requires_grad_()
    value = ask(loss, p, y.clone(), 1.0, 2.0, 0.05)
    if not isinstance(value, torch.Tensor) or not value.requires_grad:
        raise Wrong(
            "the number is right, but nothing can learn from it: give a tensor, with the gradient of p.log() and q.log()."
        )
    return torch.autograd.grad(value, p)[0]


def ranking(z, y):
    pairs = (y[:, :, None] == 1) & (y[:, None, :] == 0)
    return ((1 - z[:, :, None] + z[:, None, :]).clamp(min=0) * pairs).sum((1, 2)).mean()


@exercise(
    "06_1c.ranking",
    solution=ranking,
    hints=(
        "Compare every class that is there with every one that is not: `z[:, :, None] - z[:, None, :]` has all differences, [B, C, C].",
        "Clamp 1 minus the difference at zero, multiply by the mask of wanted pairs, sum over both class axes, and take the mean over B.",
    ),
    seen="Only differences of scores count, and only until the margin is reached. That fits what is measured: average precision asks for the "
    "right order within a class list and for nothing else.",
)
def _ranking(answer) -> None:
    z, y = 2 * torch.randn(4, 5, generator=generator(3)), torch.randint(0, 2, (4, 5), generator=generator(4))
    expected = ranking(z, y)
    given = same_shape(ask(answer, z.clone(), y.clone()), expected, "[] (one number)")
    if torch.allclose(given, ranking(-z, y), rtol=1e-4):
        raise Wrong("it punishes the right order: what is there should lead, so the term is 1 - z_there + z_absent.")
    if torch.allclose(given, 4 * expected, rtol=1e-4):
        raise Wrong("it is summed over the images: take the mean over the batch.")
    close(given, expected, "every pair (there, not there) of an image adds max(0, 1 - z_there + z_absent).")


def label_of(sentence, classes):
    words = sentence.lower()
    row = []
    found = {}
    for name in sorted(classes, key=len, reverse=True):
        pattern = rf"\b{re.escape(name)}s?\b"
        found[name] = int(bool(re.search(pattern, words)))
        words = re.sub(pattern, " ", words)
    for name in classes:
        row.append(found[name])
    return row


@exercise(
    "06_1c.nouns",
    solution=label_of,
    hints=(
        "`in` is not enough: 'cat' is in 'caterpillar'. A regular expression with a word boundary, `\\b`, on both sides looks for whole words, and "
        "`s?` before the last one allows a plural.",
        "Go through the names from the longest to the shortest, and take each match out of the sentence (`re.sub`), so that an ice cream "
        "truck leaves no truck behind. Return the results in the order of `classes`.",
    ),
    seen="These few lines are the whole annotation of TaI-DP. What a filter overlooks becomes a wrong label: a synonym that it does not know "
    "says 'absent' of a thing that the caption names.",
)
def _nouns(answer) -> None:
    classes = ["cat", "truck", "ice cream truck", "tree", "bus"]
    cases = {
        "A CAT under a tree": ([1, 0, 0, 1, 0], "capital letters hide a name: compare in lower case."),
        "a caterpillar on a tree": ([0, 0, 0, 1, 0], "a caterpillar is no cat: look for whole words."),
        "two cats and three trees": ([1, 0, 0, 1, 0], "the plural is missing: 'cats' names the class cat."),
        "a tree and a bus": ([0, 0, 0, 1, 1], "the s of 'bus' is no plural: allow an s after a name, take none away."),
        "a tree, two cats, and a truck.": ([1, 1, 0, 1, 0], "a comma or a full stop ends a word, too."),
        "an ice cream truck": ([0, 0, 1, 0, 0], "the longest name takes its words: an ice cream truck is no truck."),
        "an ice cream truck behind a truck": (
            [0, 1, 1, 0, 0],
            "there is a second truck: take out what was matched, not every 'truck'.",
        ),
        "nothing of interest": ([0, 0, 0, 0, 0], "a sentence that names no class has a row of zeros."),
    }
    for sentence, (expected, message) in cases.items():
        given = ask(answer, sentence, list(classes))
        try:
            row = [int(v) for v in given]
        except (TypeError, ValueError):
            raise Wrong(f"for {sentence!r} a list of {len(classes)} zeros and ones is expected.") from None
        if len(row) != len(classes):
            raise Wrong(f"one entry per class is expected, {len(classes)}, not {len(row)}.")
        if row != expected:
            raise Wrong(f"{sentence!r} should give {expected}: {message}")


def consistency(leaf, nodes, below):
    return float((leaf & (nodes | ~below).all(1)).float().mean())


@exercise(
    "06_1c.consistency",
    solution=consistency,
    hints=(
        "An image counts if its leaf is right and every node *above its class* is right. Nodes elsewhere in the tree have no say.",
        "`nodes | ~below` is true where a node is right or has no say; `.all(1)` joins the nodes of an image. Then `&` with the leaf, and the mean.",
    ),
    seen="It can only be lower than leaf accuracy, and it falls with the depth of the tree: ninety per cent at each of three questions that err "
    "independently leave 73.",
)
def _consistency(answer) -> None:
    leaf = torch.tensor([True, True, True, False, True, True])
    nodes = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1], [1, 0, 1], [1, 1, 0]]).bool()
    below = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 1, 0], [1, 0, 1], [1, 0, 1]]).bool()
    expected = consistency(leaf, nodes, below)
    given = number(ask(answer, leaf, nodes, below), 0, 1, "a share of the images")
    for wrong, message in (
        (
            leaf & nodes.all(1),
            "nodes elsewhere in the tree count as well: only those above the image's class have a say.",
        ),
        ((nodes | ~below).all(1), "the leaf is missing: it must be right, too."),
        (leaf, "that is leaf accuracy: the nodes above are missing."),
    ):
        share = float(wrong.float().mean())
        if abs(given - share) < 1e-6 and abs(share - expected) > 1e-6:
            raise Wrong(message)
    if abs(given - expected) > 1e-6:
        raise Wrong(f"{given:.3f} is not it; right are images whose leaf and whose nodes above are all right.")
