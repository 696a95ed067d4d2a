"""Exercises of chapter 0, a vision-language model in ten minutes."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, number, same_shape


class _Texts:
    """A text encoder that gives every sentence a vector of its own, with a length that must be taken off.

    It takes sentences, and tokens of `tokenize` (its `text` has one, as a backbone's), as the chapter's scratch cell does.
    """

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.text = self

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        """Code points of each sentence, [N, L], with zeros behind the shorter ones."""
        points = [torch.tensor([ord(letter) for letter in text]) for text in texts]
        return torch.nn.utils.rnn.pad_sequence(points, batch_first=True)

    def encode_text(self, texts: list[str] | torch.Tensor) -> torch.Tensor:
        if isinstance(texts, torch.Tensor):
            texts = ["".join(map(chr, row[row > 0].tolist())) for row in texts]
        self.asked.append(list(texts))
        return torch.stack([torch.randn(16, generator=generator(sum(map(ord, t)))) * (2 + len(t)) for t in texts])


def classifier(backbone, names, template):
    sentences = [template.format(name) for name in names]
    return F.normalize(backbone.encode_text(sentences), dim=-1)  # [C, e]


@exercise(
    "00.classifier",
    solution=classifier,
    hints=(
        "`template.format(name)` puts a name where the braces are; `backbone.encode_text` takes a list of sentences and gives [C, e].",
        "Equation (1) ends with n(...), to unit length: `F.normalize(..., dim=-1)`. Without it, a long vector wins every comparison.",
    ),
    seen="A classifier is now a list of words. Nothing was trained, and another list is another classifier.",
)
def _classifier(answer) -> None:
    names, template = ["cat", "fire engine", "boat"], "a drawing of a {}."
    expected = classifier(_Texts(), names, template)
    texts = _Texts()
    given = same_shape(ask(answer, texts, names, template), expected, "[C, e]")
    said = [text for call in texts.asked for text in call]
    if said != [template.format(name) for name in names]:
        raise Wrong(
            f"the sentences should be the template with each name, such as 'a drawing of a cat.', not {said[:1]}."
        )
    if float((given.norm(dim=-1) - 1).abs().max()) > 1e-4:
        raise Wrong("the rows do not have length 1: equation (1) ends with n(...).")
    close(given, expected, "the rows should be the sentences' features in the order of the names, and nothing else.")


def zero_shot_probabilities(features, w, scale):
    f = F.normalize(features, dim=-1)  # [B, e]
    return (scale * f @ w.T).softmax(dim=-1)  # [B, C]


@exercise(
    "00.zero_shot",
    solution=zero_shot_probabilities,
    hints=(
        "Equation (2) is one line once the image's features have unit length. The rows of `w` have it already.",
        "Probabilities are the softmax of the logits over the classes, the last axis: `.softmax(dim=-1)`.",
    ),
    seen="Three lines. The scale s decides how sure the model sounds: without it cosines between 0 and 1 would give almost "
    "equal probabilities.",
)
def _zero_shot(answer) -> None:
    features = 3 * torch.randn(5, 8, generator=generator(1))
    w = F.normalize(torch.randn(4, 8, generator=generator(2)), dim=-1)
    expected = zero_shot_probabilities(features, w, 20.0)
    given = same_shape(ask(answer, features, w, 20.0), expected, "[B, C]")
    if float((given.sum(-1) - 1).abs().max()) > 1e-4:
        raise Wrong("the rows do not sum to 1: take the softmax over the classes, which are the last axis.")
    if torch.allclose(given, (20.0 * features @ w.T).softmax(-1), atol=1e-4):
        raise Wrong("the image's features still have their own length: equation (2) has f = n(E_I(x)).")
    if torch.allclose(given, (F.normalize(features, dim=-1) @ w.T).softmax(-1), atol=1e-4):
        raise Wrong("the logit scale s of equation (2) is missing, so that every probability is near 1/C.")
    close(given, expected, "compare with equation (2), factor by factor.")


def ensemble(features):
    unit = F.normalize(features, dim=-1)  # [C, T, e]
    return F.normalize(unit.mean(dim=1), dim=-1)  # [C, e]


@exercise(
    "00.ensemble",
    solution=ensemble,
    hints=(
        "Read equation (1) from the inside out: unit length per sentence, the mean over the T sentences of a class, unit length again.",
        "The sentences are the middle axis: `F.normalize(features, dim=-1).mean(dim=1)`, and one more normalisation.",
    ),
    seen="The ensemble is still one vector per class: eighty sentences cost no more than one when an image arrives.",
)
def _ensemble(answer) -> None:
    lengths = 1 + 4 * torch.rand(3, 5, 1, generator=generator(4))
    features = torch.randn(3, 5, 8, generator=generator(3)) * lengths
    expected = ensemble(features)
    given = same_shape(ask(answer, features), expected, "[C, e]")
    if torch.allclose(given, F.normalize(features.mean(1), dim=-1), atol=1e-4):
        raise Wrong(
            "the mean is taken over vectors of different length, so that long ones count more: normalise first, too."
        )
    if float((given.norm(dim=-1) - 1).abs().max()) > 1e-4:
        raise Wrong(
            "the rows do not have length 1: a mean of unit vectors is shorter than 1, so normalise after it, too."
        )
    close(given, expected, "mean over the sentences (axis 1) of unit vectors, then unit length.")


@exercise(
    "00.least",
    solution=0.1,
    hints=(
        "What does a softmax over ten numbers sum to? How small can the largest of ten numbers with that sum be?",
        "The largest is smallest when all ten are equal.",
    ),
    seen="However wrong the list, some word gets at least 1/C, and with a large scale one word often gets nearly all. A probability "
    "is among the words that you offered; it does not say that one of them is right.",
)
def _least(answer) -> None:
    given = number(answer, 0, 1, "a probability")
    if abs(given - 0.1) > 1e-6:
        raise Wrong(
            f"{given:g} is not it: ten probabilities sum to 1; when is the largest of them as small as possible?"
        )
