"""A frozen vision-language model, opened up: pixels or words in; features, tokens and attention out.

Legend: B images, H x W their size, S the side that the image tower takes, N texts, L tokens, C classes, e joint
width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn

from vlmlab.backbones.image_tower import ImageTower, open_image_tower
from vlmlab.backbones.text_tower import TextTower, open_text_tower
from vlmlab.devices import sent
from vlmlab.errors import VlmlabError

TEXTS_AT_ONCE = 256


class Backbone(nn.Module):
    """An open_clip model behind one interface, whatever its towers are. Nothing in it learns, and it never leaves
    evaluation mode.

    name; embedded (comes with vlmlab, needs no network); model (open_clip's own); image, text (its towers, opened);
    image_size S, embed_dim e; device, dtype (of the towers' matrices; features are float32 in any case);
    logit_scale (0-d, the factor before the softmax, about 100 in CLIP); mean, std [3] of the normalisation; transform (open_clip's own, from a PIL
    image to [3, S, S]).
    """

    def __init__(self, name: str, model: nn.Module, tokenizer: Callable[..., Tensor], embedded: bool = False):
        """`model` is an open_clip model with its preprocessing (`visual.preprocess_cfg`, OpenAI's if it has none);
        `tokenizer` maps a list of texts to ids [N, context_length]."""
        super().__init__()
        self.name, self.embedded = name, embedded
        self.model = model.requires_grad_(False).eval()
        self.image: ImageTower = open_image_tower(model.visual, name)
        self.text: TextTower = open_text_tower(model, tokenizer, name)
        settings = dict(getattr(model.visual, "preprocess_cfg", None) or {})
        settings.setdefault("size", model.visual.image_size)
        self.settings = PreprocessCfg(**settings)
        self.transform = image_transform_v2(self.settings, is_train=False)
        size = self.settings.size
        self.image_size = size if isinstance(size, int) else size[0]
        self.mean, self.std = torch.tensor(self.settings.mean), torch.tensor(self.settings.std)
        self._fingerprint = ""
        with torch.no_grad():
            self.embed_dim = self.text.encode(self.text.tokenize(["a"])).shape[-1]

    def train(self, mode: bool = True) -> Backbone:
        """Stays in evaluation mode: batch statistics and dropout of a frozen model never change."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        return self.model.logit_scale.device

    @property
    def dtype(self) -> torch.dtype:
        return self.image.dtype

    @property
    def logit_scale(self) -> Tensor:
        return self.model.logit_scale.detach().float().exp().reshape(())

    def preprocess(self, pictures: Image.Image | Sequence | np.ndarray | Tensor) -> Tensor:
        """Images as the image tower wants them: float32 [B, 3, S, S] on the backbone's device, normalised.

        uint8 arrays or tensors [B, S, S, 3] (or [S, S, 3], or a list of these) are normalised at once. PIL images, and
        whatever has another size, go through open_clip's own transform one by one (for CLIP: short side to S, bicubic
        with antialiasing, centre crop), so that an image gives the same features however it comes.
        Raises `VlmlabError` for other shapes or number types.
        """
        if isinstance(pictures, Image.Image):
            pictures = [pictures]
        if isinstance(pictures, list | tuple):
            if not pictures:
                raise VlmlabError("there are no images to preprocess; give at least one")
            shapes = {p.shape if isinstance(p, np.ndarray | Tensor) else None for p in pictures}
            if None in shapes or len(shapes) > 1:
                return self._one_by_one(pictures)
            pictures = torch.stack([torch.as_tensor(p) for p in pictures])
        x = torch.as_tensor(pictures)
        x = x[None] if x.dim() == 3 else x
        if x.dtype != torch.uint8 or x.dim() != 4 or x.shape[-1] != 3:
            raise VlmlabError(
                f"images must be uint8 of shape [B, H, W, 3], not {x.dtype} of {list(x.shape)}; convert them to RGB"
            )
        if x.shape[1:3] != (self.image_size, self.image_size):
            return self._one_by_one(x.cpu().numpy())
        x = sent(x, self.device).permute(0, 3, 1, 2)
        mean, std = (sent(v, self.device).view(3, 1, 1) for v in (self.mean, self.std))
        return (x.float() / 255 - mean) / std

    def _one_by_one(self, pictures: Sequence) -> Tensor:
        images = [p if isinstance(p, Image.Image) else Image.fromarray(np.asarray(p)) for p in pictures]
        return sent(torch.stack([self.transform(image) for image in images]), self.device)

    def encode_image(self, images: Tensor) -> Tensor:
        """Features [B, e] of normalised images [B, 3, H, W], not normalised, float32."""
        return self.image.forward(sent(images, self.device))

    def encode_text(self, texts: Sequence[str] | Tensor) -> Tensor:
        """Features [N, e] of texts or of their token ids [N, L], not normalised, float32."""
        texts = [texts] if isinstance(texts, str) else texts
        tokens = (texts if isinstance(texts, Tensor) else self.text.tokenize(texts)).to(self.device).long()
        return torch.cat([self.text.encode(chunk) for chunk in tokens.split(TEXTS_AT_ONCE)])

    @torch.no_grad()
    def class_embeddings(self, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
        """The zero-shot classifier: unit rows [C, e], per class the mean of its templates' unit features, normalised
        again (CLIP, arXiv:2103.00020, section 3.1.4). A template has `{}` where the class name goes."""
        texts = [template.format(name) for name in classes for template in templates]
        features = F.normalize(self.encode_text(texts), dim=-1)
        return F.normalize(features.unflatten(0, (len(classes), len(templates))).mean(1), dim=-1)

    def fingerprint(self) -> str:
        """16 hexadecimal digits for the weights, the architecture and the preprocessing: the key of cached features."""
        if not self._fingerprint:
            digest = hashlib.sha256(f"{self.model!r}{self.settings!r}".encode())
            for key, value in sorted(self.model.state_dict().items()):
                digest.update(key.encode())
                digest.update(value.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy())
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint
