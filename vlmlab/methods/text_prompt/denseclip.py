"""DenseCLIP: Language-Guided Dense Prediction with Context-Aware Prompting (arXiv:2112.01518, CVPR 2022).

Survey, section 6.3.1. A segmentation network that starts from CLIP's image encoder leaves CLIP's words unused. DenseCLIP
compares every place with every class name, and uses these score maps twice: they are further channels of the feature map,
and they are asked for the right class by themselves. The names are refined by the image first: a small decoder lets them
look at it.

    t = E_T([SOS] v_1 ... v_M [name] [EOS])                  [K, e], v learned, the text encoder frozen      (1)
    t' = t + gamma * decoder(t, [g; V])                      g [e] and V [h w, e]: features of image and places   (2)
    S = n(V) n(t')^T                                         score maps [K, h, w]                            (3)
    logits = head(FPN(x_1, ..., [x_i; S], ...))              the maps x of four stages; S joins V's          (4)
    loss = CE(logits, y) + 0.4 CE(S / 0.07, y)               S enlarged to the masks; unknown pixels add nothing   (5)

S joins the last of a ResNet's maps and the third of a ViT's. A ViT's maps all have one size; they are brought to four. The
image encoder learns at a tenth of the rate (`encoder_rate`; 0 freezes it), the text encoder not at all. Without language
(`guided` false) it is the same network without S: the baseline. As in the release, a name has no full stop behind it, and the
class embedding of a ViT is added twice to its first token.

What differs from the release: group norm takes the place of batch norm in the head, and the batch norms of a ResNet keep their
statistics; the maps of a ViT are resized by interpolation instead of by learned layers, and pyramid and head start as PyTorch
starts them: both because a small dataset has not the steps that the release's way needs; names have any number of tokens
instead of at most three; images are taken whole instead of through a sliding window, and nothing is augmented; no drop path;
the text encoder is frozen, where the release's schedule gives it a rate up to 1e-6; detection is not built.

Dimensions: B batch, K classes, h x w places, S image side, M context vectors, d text width, e joint width, c channels of the FPN.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.backbones.blocks import run_block
from vlmlab.backbones.image_tower import copied_tower
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Batch, Recipe, optimizer_of, option
from vlmlab.methods.text_prompt.prompts import assemble, placeholders
from vlmlab.registry import register

UNKNOWN = 255
TEMPERATURE = 0.07
WARMUP_START = 1e-6  # share of the rate at the first step


@register(
    "denseclip",
    title="DenseCLIP: Language-Guided Dense Prediction with Context-Aware Prompting",
    paper="arXiv:2112.01518",
    year=2022,
    section="6.3.1",
    family="text_prompt",
    setup="supervised",
    tasks=("segmentation",),
    learns="contexts, a decoder that shows them the image, the image encoder, and a segmentation head",
    needs=("text tokens", "a ViT or ResNet image tower", "local features"),
)
class DenseCLIP(Segmenter):
    """Semantic FPN whose features are led by pixel-text score maps."""

    @dataclasses.dataclass
    class Config(Recipe):
        n_ctx: int = option(8, "context vectors M", 1, 64)
        guided: bool = option(True, "whether there are score maps; false is the plain network")
        encoder_rate: float = option(
            0.1, "learning rate of the image encoder, relative to the rest; 0: frozen", 0.0, 10.0
        )
        width: int = option(256, "width of the context decoder", 8, 4096)
        heads: int = option(4, "attention heads of the context decoder", 1, 64)
        layers: int = option(3, "layers of the context decoder", 1, 24)
        dropout: float = option(0.1, "dropout of the context decoder and of the head in training", 0.0, 0.9)
        channels: int = option(256, "channels c of the FPN", 8, 4096)
        score_weight: float = option(0.4, "weight of the score maps' own loss", 0.0, 1000.0)
        batch_size: int = option(32, "training images a step", 1, 4096)
        epochs: int = option(127, "epochs of training (ADE20K: 80,000 steps)", 1, 10000)
        optimizer: str = option("adamw", "optimiser", choices=("sgd", "adamw"))
        lr: float = option(1e-4, "learning rate after the warm-up", 0.0, 10.0)
        weight_decay: float = option(1e-4, "weight decay, none on the norms of the context decoder's layers", 0.0, 1.0)
        warmup_steps: int = option(1500, "first steps, in which the rate rises in a straight line", 0, 100000)
        least_lr: float = option(1e-6, "learning rate at the end", 0.0, 1.0)

    embedded: ClassVar[dict] = {
        "width": 64,
        "channels": 32,
        "layers": 2,
        "epochs": 8,
        "batch_size": 16,
        "lr": 2e-3,
        "warmup_steps": 10,
    }
    eats = "images"

    def learns_from(self, task):
        """The support: it takes shots, unlike the dense systems of section 7."""
        return task.support

    def prepare(self, task) -> None:
        image, config = self.backbone.image, self.config
        self.learned_on: list[str] = list(task.classes)
        self.set_classes(task.classes, task.templates)
        device, d, e = self.backbone.device, self.backbone.text.width, self.backbone.embed_dim
        if config.encoder_rate:
            # A copy: the backbone itself stays frozen, for everything else that uses it.
            self.tower = [copied_tower(image)]  # in a list: it is a view of self.visual
            self.visual = self.tower[0].visual.requires_grad_(True)
        else:
            self.tower = [image]
        with torch.no_grad():
            side = self.backbone.image_size
            maps, _, _ = self.look(torch.zeros(1, 3, side, side, device=device))
        widths = [x.shape[1] for x in maps]
        if config.guided:
            self.contexts = nn.Parameter(nn.init.trunc_normal_(torch.empty(config.n_ctx, d)).to(device))  # v [M, d]
            self.gamma = nn.Parameter(torch.full((e,), 1e-4, device=device))
            self.context_decoder = ContextDecoder(e, config.width, config.heads, config.layers, config.dropout).to(
                device
            )
            widths[self.joined] += len(task.classes)
        self.neck = FPN(widths, config.channels).to(device)
        self.head = FPNHead(config.channels, len(task.classes), config.dropout).to(device)

    def train(self, mode: bool = True) -> DenseCLIP:
        """Stays in evaluation mode: batch statistics are those of pretraining; `loss` asks for dropout itself."""
        return super().train(False)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Raises `VlmlabError` for other classes than those of the head."""
        self.refuse_other_classes(classes, "DenseCLIP's head belongs to its classes; use maskclip for other words")
        super().set_classes(classes, templates)
        self.prompts = assemble(self.backbone.text, classes, placeholders(self.config.n_ctx), stop="")

    @property
    def joined(self) -> int:
        """Which of the four maps the scores join."""
        return 3 if self.backbone.image.kind == "resnet" else 2

    def look(self, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """The maps x of four stages, and g [B, e] and V [B, e, h, w] of (2), of the encoder that learns."""
        tower = self.tower[0]
        return (_resnet if tower.kind == "resnet" else _vit)(tower, images)

    def text_features(self) -> Tensor:
        """t of (1), [K, e]."""
        return self.prompts.features(self.backbone.text, self.contexts)

    def score_maps(self, g: Tensor, v: Tensor, training: bool = False) -> Tensor:
        """S of (3), [B, K, h, w]."""
        memory = torch.cat([g[:, None], v.flatten(2).transpose(1, 2)], 1)  # [B, 1 + h w, e]
        t = self.text_features().expand(len(v), -1, -1)
        t = t + self.gamma * self.context_decoder(t, memory, training)  # t' (2)
        return torch.einsum("behw,bke->bkhw", F.normalize(v, dim=1), F.normalize(t, dim=-1))

    def both(self, images: Tensor, training: bool = False) -> tuple[Tensor, Tensor | None]:
        """Logits of (4), [B, K, h', w'] at the size of the largest map, and score maps [B, K, h, w]."""
        maps, g, v = self.look(images)
        scores = self.score_maps(g, v, training) if self.config.guided else None
        if scores is not None:
            own = scores
            if own.shape[-2:] != maps[self.joined].shape[-2:]:
                own = F.interpolate(own, size=maps[self.joined].shape[-2:], mode="bilinear")
            maps[self.joined] = torch.cat([maps[self.joined], own], 1)
        return self.head(self.neck(maps), training), scores

    def logits(self, batch: Batch) -> Tensor:
        """Scores [B, K, S, S] at the size of the images."""
        return F.interpolate(self.both(batch.images)[0], size=batch.images.shape[-2:], mode="bilinear")

    def loss(self, batch: Batch) -> Tensor:
        if batch.masks is None:
            raise VlmlabError("DenseCLIP learns from images with masks; choose tableau")
        logits, scores = self.both(batch.images, training=True)
        masks = batch.masks
        masks = masks.masked_fill((masks < 0) | (masks >= len(self.classes)), UNKNOWN)
        total = pixel_loss(logits, masks)
        if scores is not None:
            total = total + self.config.score_weight * pixel_loss(scores / TEMPERATURE, masks)
        return total  # (5)

    def optimizer(self, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Three groups: the image encoder at its own rate; the norms of the context decoder's layers, without weight decay
        (the release finds norms by this name, and no others); the rest."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            of_encoder = name.startswith("visual.")
            rate = self.config.encoder_rate if of_encoder else 1.0
            decay = 0.0 if "norm" in name and not of_encoder else self.config.weight_decay
            groups.setdefault((rate, decay), []).append(parameter)
        listed = [{"params": params, "weight_decay": decay} for (_, decay), params in groups.items()]
        optimizer = optimizer_of(self.config, listed)
        rates = [lambda step, rate=rate: self.learning_rate(step, steps, rate) for rate, _ in groups]
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rates)

    def learning_rate(self, step: int, steps: int, relative: float = 1.0) -> float:
        """From `relative` times the rate by (1 - step/steps)^0.9 down to `least_lr`, the same for every group; in the
        warm-up times a straight rise that starts at a millionth."""
        config = self.config
        rate = (relative * config.lr - config.least_lr) * (1 - step / steps) ** 0.9 + config.least_lr
        to_come = max(0.0, 1 - step / config.warmup_steps) if config.warmup_steps else 0.0
        return rate * (1 - to_come * (1 - WARMUP_START))


def pixel_loss(scores: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of scores [B, K, h, w], enlarged to masks [B, S, S]; as in the release, the mean is over all pixels,
    those of unknown class counted as zero."""
    enlarged = F.interpolate(scores, size=masks.shape[-2:], mode="bilinear")
    return F.cross_entropy(enlarged, masks, ignore_index=UNKNOWN, reduction="none").mean()


# --- the image encoder's maps -----------------------------------------------------------------------------------------


def _resnet(tower, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """The stages' maps, and the attention pool asked from the mean and from every place."""
    visual, maps = tower.visual, []
    x = visual.stem(images.to(tower.dtype))
    for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = stage(x)
        maps.append(x)
    # CLIP's attention pool with all tokens for queries; positions resized bilinearly.
    q, k, v = tower.projected(tower.pool_tokens(x, mode="bilinear"))
    pooled = visual.attnpool.c_proj(
        F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    )  # [B, 1 + h w, e]
    return maps, pooled[:, 0], pooled[:, 1:].transpose(1, 2).unflatten(2, x.shape[-2:])


def _vit(tower, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """The patch tokens after a third, half, two thirds and all of the blocks (3, 5, 7, 11 of 12), at four sizes."""
    visual, size = tower.visual, tower.grid(*images.shape[-2:])
    x = visual.ln_pre(tower.placed(tower.patches(images), size, "bilinear", times=2))  # twice, as in the release
    depth = len(visual.transformer.resblocks)
    taken = [max(0, round(depth * share) - 1) for share in (1 / 3, 1 / 2, 2 / 3, 1)]
    found = {}
    for j, block in enumerate(visual.transformer.resblocks):
        x = run_block(block, x)
        if j in taken:
            found[j] = x[:, 1:].transpose(1, 2).unflatten(2, size)
    maps = [found[j] for j in taken]
    for i, factor in ((0, 4.0), (1, 2.0), (3, 0.5)):
        maps[i] = F.interpolate(maps[i], scale_factor=factor, mode="bilinear")
    joint = visual.ln_post(x) if visual.proj is None else visual.ln_post(x) @ visual.proj
    return maps, joint[:, 0], joint[:, 1:].transpose(1, 2).unflatten(2, size)


# --- the parts that learn from nothing ------------------------------------------------------------------------------------


class ContextDecoder(nn.Module):
    """Text features look at an image: layers of attention among themselves, then to the image, then an MLP."""

    def __init__(self, e: int, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.memory_proj = nn.Sequential(nn.LayerNorm(e), nn.Linear(e, width), nn.LayerNorm(width))
        self.text_proj = nn.Sequential(nn.LayerNorm(e), nn.Linear(e, width))
        self.decoder = nn.ModuleList([DecoderLayer(width, heads, dropout) for _ in range(layers)])
        self.out_proj = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, e))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, text: Tensor, visual: Tensor, training: bool = False) -> Tensor:
        """[B, K, e] for text [B, K, e] and the image's features [B, 1 + h w, e]; dropout if `training`."""
        memory, x = self.memory_proj(visual), self.text_proj(text)
        for layer in self.decoder:
            x = layer(x, memory, training)
        return self.out_proj(x)


class DecoderLayer(nn.Module):
    """One layer, norms first; queries, keys and values have no bias."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn, self.cross_attn = Attention(width, heads), Attention(width, heads)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = dropout
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, memory: Tensor, training: bool) -> Tensor:
        def drop(y: Tensor) -> Tensor:
            return F.dropout(y, self.dropout, training)

        q = self.norm1(x)
        x = x + drop(self.self_attn(q, q))
        x = x + drop(self.cross_attn(self.norm2(x), memory))
        inner = drop(self.mlp[1](self.mlp[0](self.norm3(x))))
        return x + drop(self.mlp[3](inner))


class Attention(nn.Module):
    """Attention of x [B, K, c] to y [B, L, c]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        q, k, v = (
            linear(part).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear, part in ((self.q_proj, x), (self.k_proj, y), (self.v_proj, y))
        )
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FPN(nn.Module):
    """A feature pyramid (Lin et al., arXiv:1612.03144): coarse maps are added to finer ones, all with c channels."""

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList([nn.Conv2d(w, channels, 1) for w in widths])
        self.out = nn.ModuleList([nn.Conv2d(channels, channels, 3, padding=1) for _ in widths])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        x = [lateral(m) for lateral, m in zip(self.lateral, maps, strict=True)]
        for i in range(len(x) - 1, 0, -1):
            x[i - 1] = x[i - 1] + F.interpolate(x[i], size=x[i - 1].shape[-2:], mode="nearest")
        return [out(m) for out, m in zip(self.out, x, strict=True)]


class FPNHead(nn.Module):
    """Semantic FPN (Kirillov et al., arXiv:1901.02446): every map is brought to the finest one's size, summed, classified."""

    def __init__(self, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        steps = (1, 1, 2, 3)  # how often each map is convolved, and all but the first one doubled
        self.scales = nn.ModuleList([nn.ModuleList([_convolution(channels) for _ in range(n)]) for n in steps])
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, maps: Sequence[Tensor], training: bool = False) -> Tensor:
        """[B, K, h', w'] at the size of the first map; whole channels drop out if `training`."""
        total, size = 0, maps[0].shape[-2:]
        for i, (scale, x) in enumerate(zip(self.scales, maps, strict=True)):
            for step in scale:
                x = step(x)
                if i:
                    x = F.interpolate(x, scale_factor=2.0, mode="bilinear")
            total = total + (x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear"))
        return self.classify(F.dropout2d(total, self.dropout, training))


def _convolution(channels: int) -> nn.Sequential:
    groups = next(n for n in (32, 16, 8, 4, 2, 1) if (channels % n == 0 and channels // n >= 4) or n == 1)
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(groups, channels), nn.ReLU())
