"""SimCLR: a small encoder that learns from images without labels (arXiv:2002.05709).

Two random views of one image show the same thing; views of two images usually do not. An encoder that tells the first case
from the second has to find what survives cropping and recolouring, and needs neither a label nor a word for it.

    u, v = n(p(g(view_1(x)))), n(p(g(view_2(x))))        g the encoder, p a projector that is thrown away, n: to unit length   (1)
    loss = mean over all 2B views a of  -log( exp(a b / t) / sum over the other 2B - 1 views c of exp(a c / t) )               (2)

where b is the other view of a's image. A view is a random part of the image, perhaps flipped, perhaps with other brightness,
contrast, saturation and hue, perhaps grey.

Dimensions: N images, B batch, H x W their size, S side of a view, D width of the features, E width of the projection.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from vlmlab.errors import VlmlabError
from vlmlab.randomness import LocalRandom

PROJECTION = (512, 128)
"""Widths of the projector's hidden layer and of its output E."""

TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
"""Red, green, blue to brightness and two axes of colour; hue is an angle between the latter (NTSC)."""


class SmallEncoder(nn.Module):
    """Four strided convolutions and a mean over places: pixels [B, 3, H, W] in 0 to 1 -> features [B, D], any size."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.width = width  # D
        widths = [3, width // 8, width // 4, width // 2, width]
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
                for a, b in itertools.pairwise(widths)
            )
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layers(2 * pixels - 1).mean((-2, -1))


class ResNet50Encoder(nn.Module):
    """torchvision's ResNet-50 without its classifier: pixels [B, 3, H, W] in 0 to 1 -> features [B, 2048]."""

    width = 2048

    def __init__(self, pretrained: bool) -> None:
        """`pretrained` starts from ImageNet's labels, as SVL-Adapter does; without a network that is a `VlmlabError`."""
        super().__init__()
        from torchvision.models import ResNet50_Weights, resnet50

        try:
            self.trunk = resnet50(weights=ResNet50_Weights.IMAGENET1K_V1 if pretrained else None)
        except OSError as error:
            raise VlmlabError(
                "the ImageNet weights of ResNet-50 could not be fetched; set pretrained=false or encoder=small"
            ) from error
        self.trunk.fc = nn.Identity()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.trunk((pixels - self.mean) / self.std)


def pretrain(
    encoder: nn.Module,
    pixels: Tensor,
    side: int,
    epochs: int,
    batch_size: int = 256,
    lr: float = 0.03,
    temperature: float = 0.5,
    seed: int = 0,
) -> list[float]:
    """Train `encoder` by (2) on images `pixels` [N, 3, H, W] in 0 to 1, and leave it in evaluation mode.

    SGD with momentum 0.9, weight decay 5e-4 and a cosine to zero at every step, from `lr` times batch over 256. Random
    numbers come from `seed` alone (see `LocalRandom`). A bar on the terminal shows the epochs. Gives the loss of every step.

    Raises `VlmlabError` for fewer than two images: there would be nothing to tell apart.
    """
    if len(pixels) < 2:
        raise VlmlabError("self-supervised learning tells images apart; give at least two")
    batch_size = min(batch_size, len(pixels))
    batches = len(pixels) // batch_size
    losses: list[float] = []
    with LocalRandom(seed), torch.enable_grad():
        projector = nn.Sequential(nn.Linear(encoder.width, PROJECTION[0]), nn.ReLU(), nn.Linear(*PROJECTION)).to(
            pixels.device
        )  # p
        parameters = [*encoder.parameters(), *projector.parameters()]
        optimizer = torch.optim.SGD(parameters, lr * batch_size / 256, momentum=0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
        encoder.train()
        for _ in tqdm(range(epochs), "SimCLR", leave=False, disable=None):
            order = torch.randperm(len(pixels)).to(pixels.device)
            for k in range(batches):
                chosen = pixels[order[k * batch_size : (k + 1) * batch_size]]
                views = torch.cat([random_views(chosen, side), random_views(chosen, side)])
                u, v = projector(encoder(views)).chunk(2)  # (1)
                loss = nt_xent(u, v, temperature)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(float(loss.detach()))
    encoder.zero_grad(set_to_none=True)
    encoder.eval().requires_grad_(False)
    return losses


def nt_xent(u: Tensor, v: Tensor, temperature: float) -> Tensor:
    """(2) for projections u, v [B, E] of the two views, of any length: the normalised, temperature-scaled cross-entropy."""
    count = len(u)
    views = F.normalize(torch.cat([u, v]), dim=-1)  # [2B, E]
    scores = views @ views.T / temperature
    scores = scores.masked_fill(torch.eye(2 * count, dtype=torch.bool, device=u.device), float("-inf"))
    partner = torch.arange(2 * count, device=u.device).roll(count)
    return F.cross_entropy(scores, partner)


def random_views(pixels: Tensor, side: int, area: tuple[float, float] = (0.2, 1.0), strength: float = 0.5) -> Tensor:
    """One view of every image of `pixels` [B, 3, H, W] in 0 to 1: [B, 3, S, S]. Draws from PyTorch's generator."""
    return recoloured(cropped(pixels, side, area), strength)


def cropped(pixels: Tensor, side: int, area: tuple[float, float]) -> Tensor:
    """A part of every image with a share of its area out of `area` and sides 3:4 to 4:3, perhaps mirrored: [B, 3, S, S]."""
    count, device = len(pixels), pixels.device
    share = torch.empty(count).uniform_(*area)
    ratio = torch.empty(count).uniform_(math.log(3 / 4), math.log(4 / 3)).exp()
    wide, high = (share * ratio).sqrt().clamp(max=1), (share / ratio).sqrt().clamp(max=1)  # of the image's sides
    x, y = (1 - wide) * (2 * torch.rand(count) - 1), (1 - high) * (2 * torch.rand(count) - 1)  # centre, in -1 to 1
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    zero = torch.zeros(count)
    frame = torch.stack([torch.stack([wide * mirror, zero, x], -1), torch.stack([zero, high, y], -1)], 1)  # [B, 2, 3]
    grid = F.affine_grid(frame.to(device), [count, 3, side, side], align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def recoloured(pixels: Tensor, strength: float) -> Tensor:
    """Other brightness, contrast, saturation and hue for four images in five, no colour at all for one in five."""
    count, device = len(pixels), pixels.device

    def factor(spread: float) -> Tensor:
        return torch.empty(count).uniform_(1 - spread, 1 + spread).to(device).view(-1, 1, 1, 1)

    changed = pixels * factor(0.8 * strength)
    mean = changed.mean((1, 2, 3), keepdim=True)
    changed = mean + factor(0.8 * strength) * (changed - mean)
    angle = 2 * math.pi * torch.empty(count).uniform_(-0.2 * strength, 0.2 * strength).to(device)
    saturation = factor(0.8 * strength).flatten()
    cos, sin, one, zero = saturation * angle.cos(), saturation * angle.sin(), torch.ones_like(angle), 0 * angle
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], -1).view(-1, 3, 3)
    basis = TO_YIQ.to(device)
    changed = torch.einsum("bij,bjhw->bihw", basis.inverse() @ turn @ basis, changed).clamp(0, 1)
    kept = torch.where((torch.rand(count) < 0.8).to(device).view(-1, 1, 1, 1), changed, pixels)
    grey = (TO_YIQ[0].to(device).view(3, 1, 1) * kept).sum(1, keepdim=True).expand_as(kept)
    return torch.where((torch.rand(count) < 0.2).to(device).view(-1, 1, 1, 1), grey, kept)
