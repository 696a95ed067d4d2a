"""A prompt with room for learned vectors: what CoOp and all of its descendants build their text from.

A sentence "X X X X golden retriever." is tokenised as it stands; the embeddings of its first M words are then replaced
by M learned vectors. The end-of-text token, whose last state is the text's feature, is found in the tokens of that
sentence, so as many vectors must go in as words were written: `assemble` sees to it.

Dimensions: C classes, M context vectors, s start tokens, S tokens after the context, L tokens of a prompt, d text width,
e joint width, B contexts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from vlmlab.errors import VlmlabError
from vlmlab.methods.templates import spoken


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The frozen parts of the class prompts [start | M learned vectors | rest], as word embeddings without positions.

    start [s, d] (CLIP: the start token); words [M, d] what the learned vectors replace; rest [C, S, d] (frozen words if
    any, class name, full stop, end token, padding to the longest, or as far as the tower reads); end [C] position of the pooled token within `rest`;
    names [C] tokens of each class name.
    """

    start: Tensor
    words: Tensor
    rest: Tensor
    end: Tensor
    names: Tensor

    def features(self, text, context: Tensor, deep: Sequence[Tensor] | None = None) -> Tensor:
        """Text features [C, e], not normalised, of a `context` [M, d] that all classes share; [B, C, e] of [B, M, d].

        The start token and the context stand before every class name, so a causal tower encodes them once.
        """
        start = self.start.expand(*context.shape[:-2], -1, -1)
        prefix = torch.cat([start, context.type_as(start)], dim=-2)
        return text.forward_shared_prefix(prefix, self.rest, self.end, deep=deep)

    def order(self, before: int) -> Tensor:
        """Per class, which token of [start, context, rest] stands where, [C, L], with `before` context vectors ahead
        of the class name and the others after it."""
        s, m = len(self.start), len(self.words)
        length = s + m + self.rest.shape[1]
        rows = []
        for n in self.names.tolist():
            context, name, tail = range(s, s + m), range(s + m, s + m + n), range(s + m + n, length)
            rows.append([*range(s), *context[:before], *name, *context[before:], *tail])
        return torch.tensor(rows, device=self.rest.device)

    def features_around(self, text, context: Tensor, order: Tensor) -> Tensor:
        """As `features` of a `context` [M, d] or, one per class, [C, M, d], with the tokens in an `order` [C, L].

        Nothing is shared between the classes, so this is for names that do not stand at the end.
        """
        start, rest = self.start.expand(len(self.rest), -1, -1), self.rest
        context = context.expand(len(rest), -1, -1).type_as(rest)
        sequence = torch.cat([start, context, rest], dim=1)  # [C, L, d], the name at the end
        sequence = sequence.gather(1, order[..., None].expand_as(sequence))
        return text.forward(sequence, self.end + start.shape[1] + context.shape[1])


def placeholders(count: int) -> str:
    """`count` words without a meaning, which hold the places of context vectors in the tokens of a prompt."""
    return " ".join(["X"] * count)


def first_words(init: str, count: int) -> str:
    """The words that a context starts from, "a_photo_of_a" in the releases' spelling, or `count` placeholders if there are none."""
    return init.replace("_", " ") or placeholders(count)


def random_vectors(*shape: int, generator: torch.Generator | None = None) -> Tensor:
    """Prompt vectors that start from no words: normal, with CoOp's standard deviation of 0.02."""
    return 0.02 * torch.randn(*shape, generator=generator)


@torch.no_grad()
def assemble(text, classes: Sequence[str], words: str, learned: int | None = None, stop: str = ".") -> Prompts:
    """The prompts "{words} {class}." for the text tower `text`; the first `learned` tokens of `words` make room.

    `learned` None means all of them; those beyond stay as frozen words. (CoOp's release and its descendants count the words
    between blanks instead; it is the same unless a word has several tokens.) `stop` is what stands behind the name, frozen:
    "" leaves the full stop out, ", a type of pet." is the rest of a template.
    Raises `VlmlabError` if a prompt does not fit into the tower, or if the tower does not pool at an end-of-text token.
    """
    names, start = spoken(classes), text.special
    if not text.takes_prompts:
        raise VlmlabError(f"the text tower of {text.name} pools no end-of-text token; choose a CLIP such as micro-vit")

    def count(texts: list[str]) -> Tensor:
        return text.extent(text.tokenize(texts)) - text.extent(text.tokenize([""]))

    lengths, room = count(names), int(count([words]))
    learned = room if learned is None else learned
    needed = start + room + lengths + int(count([stop])) + 1  # what stands behind the name, and the end token
    if int(needed.max()) > text.context_length:
        longest = names[int(lengths.argmax())]
        raise VlmlabError(
            f"the prompt of '{longest}' needs {int(needed.max())} tokens and {text.name} has {text.context_length}; "
            "use fewer context vectors or shorter class names"
        )
    tokens = text.tokenize([f"{words} {name}{stop}" for name in names])
    end = text.end_of_text(tokens)
    embeddings = text.embed(tokens[:, : int(end.max()) + 1])
    first = start + learned
    return Prompts(embeddings[0, :start], embeddings[0, start:first], embeddings[:, first:], end - first, lengths)
