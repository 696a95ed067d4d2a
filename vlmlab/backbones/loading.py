"""From a name to a backbone: embedded weights, a local checkpoint, or open_clip's hub.

open_clip builds every model. Weights are read from safetensors, or with `weights_only=True`: a checkpoint cannot
carry code; embedded ones are checked against the SHA-256 that their manifest pins.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import math
import os
import pickle
import ssl
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import open_clip
import torch
from huggingface_hub import constants, try_to_load_from_cache
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.model import CLIP, convert_to_custom_text_state_dict
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vlmlab.backbones.backbone import Backbone
from vlmlab.backbones.catalog import check_backbone, manifest
from vlmlab.errors import VlmlabError, unknown
from vlmlab.files import data_path, expanded, verified
from vlmlab.heap import keep_freed_memory
from vlmlab.randomness import LocalRandom

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "clip",
    "net",
    "network",
    "weights",
    "model_ema",
    "ema",
)
"""Keys under which training programs keep the state dict, beside the optimiser and whatever else they need."""

OPENAI_MARKS = ("input_resolution", "context_length", "vocab_size")
"""Entries that only OpenAI's own checkpoints have; such a model was trained with QuickGELU."""

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_backbone(name: str, device: str = "auto", precision: str = "auto") -> Backbone:
    """A frozen backbone in evaluation mode.

    Args:
        name: an embedded one (`vlmlab backbones`), ARCH/TAG of open_clip, or ARCH@FILE for a local checkpoint.
        device: "auto" (a CUDA GPU if there is one, else Apple's, else the CPU), "cpu", "cuda", "cuda:1", "mps".
        precision: "auto" (bfloat16 on a CUDA GPU, else float32), "float32", "bfloat16", "float16".

    Raises:
        VlmlabError: an unknown name, device or precision; a checkpoint that is missing, damaged or of another
            architecture; embedded weights whose bytes are not the pinned ones; a hub that cannot be reached.
    """
    target = device_of(device)
    kind = precision_of(precision, target)
    with LocalRandom(0), _without_waiting(name):  # open_clip fills a model with random numbers before the weights come
        backbone = _opened(name)
    if target.type == "cpu" and name not in manifest():  # whose blocks are small, and are reused anyway
        keep_freed_memory()
    scale = backbone.model.logit_scale.data.float()
    backbone.to(device=target, dtype=kind)
    # About 4.6: in half precision its exponential would be one per cent off.
    backbone.model.logit_scale.data = scale.to(target)
    return backbone


def _opened(name: str) -> Backbone:
    embedded = manifest()
    if name in embedded:
        return _embedded(name, embedded[name])
    if name == "photo":
        return _photo()
    if "@" in name:
        return _checkpoint(name)
    if "/" in name:
        return _hub(name)
    check_backbone(name)
    raise VlmlabError(
        f"{data_path('backbones')} has no weights of {name}; get the repository's data/ again, or name a copy "
        "with VLMLAB_DATA"
    )


def device_of(device: str) -> torch.device:
    """The device that `load_backbone` means by a name; a GPU has its number. Raises `VlmlabError` for one that is not here."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.empty(0, device="cuda").device
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        target = torch.device(device)
        target = torch.empty(0, device=target).device
    except (RuntimeError, AssertionError) as error:
        raise VlmlabError(f"the device '{device}' cannot be used here; choose cpu or auto") from error
    return target


def precision_of(precision: str, device: torch.device) -> torch.dtype:
    """The number type that `load_backbone` means by a name. Raises `VlmlabError` for an unknown one."""
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if precision not in PRECISIONS:
        raise unknown("precision", precision, ("auto", *PRECISIONS))
    return PRECISIONS[precision]


def _embedded(name: str, entry: dict) -> Backbone:
    remedy = f"get the repository's data/ again, or rebuild it with: vlmlab build {name}"
    config = json.loads(data_path("backbones", entry["config"]).read_text(encoding="utf-8"))
    state: dict[str, Tensor] = {}
    for file in entry["weights"]:
        path = verified(data_path("backbones", file), entry["sha256"][file], remedy)
        state |= {key: value.float() if value.is_floating_point() else value for key, value in load_file(path).items()}
    model = CLIP(**config)
    _load(model, state, name)
    context = config["text_cfg"]["context_length"]
    return Backbone(name, model, open_clip.SimpleTokenizer(context_length=context), embedded=True)


def _photo() -> Backbone:
    try:
        from vlmlab.backbones.photo import load_photo
    except ImportError as error:
        raise VlmlabError("the backbone photo is not part of this version; use micro-vit, or a hub name") from error
    return load_photo()


def _checkpoint(name: str) -> Backbone:
    """ARCH@FILE: a state dict in OpenAI's or open_clip's format, also inside of what training programs save around it.

    OpenAI's own files are TorchScript archives, which carry code and are not opened. A state dict that does not show
    that it was trained with QuickGELU needs an ARCH that says so, such as ViT-B-32-quickgelu; a warning says that where
    there is such an ARCH. Weights of another resolution are opened at theirs.
    """
    arch, _, file = name.partition("@")
    _known_arch(arch)
    state = _state_dict(expanded(file))
    openai = any(mark in state for mark in OPENAI_MARKS)
    state = {key: value for key, value in state.items() if key not in OPENAI_MARKS}
    twin = f"{arch}-quickgelu"
    if not openai and twin in open_clip.list_models():
        warnings.warn(
            f"{name} is opened with GELU, because the file does not say which activation its weights were trained with; weights of "
            f"OpenAI, and those that began with them, need QuickGELU: name them {twin}@{file}",
            stacklevel=2,
        )
    # An OpenAI checkpoint means QuickGELU whether or not the name of the architecture says so.
    model = _empty(name, arch, openai, "logit_bias" in state)
    side = _side_of(state, model)
    if side != _side(model):
        warnings.warn(
            f"{name} is opened at the {side} x {side} pixels that its weights were trained with", stacklevel=2
        )
        model = _empty(name, arch, openai, "logit_bias" in state, side)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)  # a CLIP's weights for an architecture with a tower `text`
    _load(model, {key: value.float() if value.is_floating_point() else value for key, value in state.items()}, name)
    return _with_tokenizer(name, model, arch)


def _empty(name: str, arch: str, quick_gelu: bool, bias: bool = False, side: int | None = None) -> torch.nn.Module:
    """The architecture with random weights; open_clip's warning that they are random is not passed on.

    `bias` says whether it has a logit bias, as SigLIP's loss needs it; `side` is the size of its images in pixels.
    """
    more = {"init_logit_bias": 0.0} if bias else {}
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        return open_clip.create_model(
            arch, force_quick_gelu=quick_gelu, force_image_size=side, pretrained_text=False, **more
        )
    except OSError as error:  # some text towers take their configuration from the hub
        raise _not_here(name, f"the configuration of {arch}") from error
    finally:
        root.setLevel(level)


def _side(model: torch.nn.Module) -> int:
    size = model.visual.image_size
    return size if isinstance(size, int) else size[0]


def _side_of(state: dict[str, Tensor], model: torch.nn.Module) -> int:
    """The size of the images, in pixels, that the weights of a CLIP were trained with: from the number of positions.

    That of `model` if the weights do not tell.
    """
    for key in ("visual.positional_embedding", "visual.attnpool.positional_embedding"):
        mine, theirs = model.state_dict().get(key), state.get(key)
        if mine is None or theirs is None or theirs.ndim != 2 or mine.shape[1] != theirs.shape[1]:
            continue
        grid, own = math.isqrt(len(theirs) - 1), math.isqrt(len(mine) - 1)
        if grid * grid == len(theirs) - 1 and own * own == len(mine) - 1:
            return _side(model) * grid // own
    return _side(model)


def _with_tokenizer(name: str, model: torch.nn.Module, arch: str) -> Backbone:
    try:
        tokenizer = open_clip.get_tokenizer(arch)
    except OSError as error:  # Hugging Face text towers bring their own tokenizer, from the hub
        raise _not_here(name, f"the tokenizer of {arch}") from error
    return Backbone(name, model, tokenizer)


def _not_here(name: str, what: str) -> VlmlabError:
    return VlmlabError(
        f"{name}: {what} is not in the cache {constants.HF_HUB_CACHE} and the hub cannot be reached; connect to a "
        "network, give a file as ARCH@FILE, or use an embedded backbone such as micro-vit"
    )


def _known_arch(arch: str) -> None:
    if arch not in open_clip.list_models():
        raise unknown("architecture", arch, open_clip.list_models())


def _state_dict(path: Path) -> dict[str, Tensor]:
    if not os.path.isfile(path):
        raise VlmlabError(f"there is no checkpoint {path}; name an existing file, as in ViT-B-32@weights.safetensors")
    try:
        state = load_file(path) if path.suffix.lower() == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except OSError as error:
        raise VlmlabError(f"cannot read {path} ({error.strerror or error}); choose a file that you may read") from error
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise VlmlabError(
            f"{path} cannot be read as plain weights (damaged, or an archive that carries code); "
            "save its state dict as safetensors"
        ) from error
    state = _unwrapped(state)
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise VlmlabError(f"{path} holds no state dict of tensors; save one with torch.save(model.state_dict(), ...)")
    return _without_prefix(state)


def _unwrapped(content: object) -> object:
    """The state dict inside of what a training program saved: the first of `WRAPPERS` whose value is a dict, at any depth."""
    while isinstance(content, dict) and not (content and all(isinstance(value, Tensor) for value in content.values())):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), None)
        if inner is None:
            # Beside the tensors there may be plain facts, which are no part of the model.
            tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
            plain = all(isinstance(value, (Tensor, int, float, str, bool, type(None))) for value in content.values())
            return tensors if plain else content
        content = inner
    return content


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as the model itself has them, without what wrappers put before (module., _orig_mod., model.).

    The prefix is whatever stands before `logit_scale`, which every CLIP has one of. Tensors outside of it keep their
    names, so that loading can say that they do not belong.
    """
    roots = sorted((key.removesuffix("logit_scale") for key in state if key.endswith("logit_scale")), key=len)
    prefix = next((root for root in roots if root == "" or root.endswith(".")), "module.")
    # torch.compile and DDP may also wrap the towers one by one.
    return {
        key.removeprefix(prefix).replace("_orig_mod.", "").replace(".module.", "."): value
        for key, value in state.items()
    }


def _load(model: torch.nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load `state`, or say in one line which tensor does not fit."""
    wanted = model.state_dict()
    state = {key: value for key, value in state.items() if key in wanted or not key.endswith("attn_mask")}
    for key, value in wanted.items():
        if key not in state and not key.endswith(("num_batches_tracked", "attn_mask")):
            raise VlmlabError(f"the weights of {name} lack {key}; they belong to another architecture")
        if key in state and state[key].shape != value.shape:
            found, right = list(state[key].shape), list(value.shape)
            if "pos" in key and len(found) == len(right) and found[-1] == right[-1]:
                what = (
                    "context length" if key.endswith("positional_embedding") and "visual" not in key else "resolution"
                )
                raise VlmlabError(
                    f"in the weights of {name}, {key} is {found} and not {right}: they are of another {what}; name the "
                    "architecture that has it"
                )
            raise VlmlabError(f"in the weights of {name}, {key} is {found} and not {right}: another architecture's")
    extra = next((key for key in state if key not in wanted), None)
    if extra is not None:
        raise VlmlabError(f"the weights of {name} have {extra}, which the architecture does not; name the right one")
    odd = next((key for key, value in state.items() if not torch.isfinite(value).all()), None)
    if odd is not None:
        raise VlmlabError(f"in the weights of {name}, {odd} has numbers that are not finite; use an earlier checkpoint")
    model.load_state_dict(state, strict=False)


def _hub(name: str) -> Backbone:
    """ARCH/TAG: from the hub's cache, or fetched now."""
    arch, _, tag = name.rpartition("/")
    known = [f"{a}/{t}" for a, t in open_clip.list_pretrained()]
    if name not in known:
        raise unknown("backbone", name, known)
    facts = get_pretrained_cfg(arch, tag)
    path = _cached(facts) or _fetched(name, facts)
    try:
        model = open_clip.create_model(
            arch, pretrained=str(path), force_quick_gelu=bool(facts.get("quick_gelu")), force_preprocess_cfg=facts
        )
    except OSError as error:
        raise _not_here(name, f"the configuration of {arch}") from error
    except RuntimeError as error:
        raise VlmlabError(
            f"{path} does not hold the weights of {name}; delete it, so that it is fetched again"
        ) from error
    return _with_tokenizer(name, model, arch)


def _cached(facts: dict) -> Path | None:
    """The weights file if it was fetched before, found without a network."""
    if facts.get("hf_hub"):
        repository, _, file = facts["hf_hub"].rpartition("/")
        files = [str(Path(file).with_suffix(".safetensors")), file] if file else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
        found = (try_to_load_from_cache(repository, candidate) for candidate in files)
        return next((Path(path) for path in found if isinstance(path, str)), None)
    path = expanded("~/.cache/clip") / Path(facts["url"]).name
    return path if path.is_file() else None


def _fetched(name: str, facts: dict) -> str:
    """The weights file, fetched; says so first. Without a network it fails at once, not after the hub's retries."""
    address = constants.ENDPOINT if facts.get("hf_hub") else facts["url"]
    source = (facts.get("hf_hub") or address).strip("/")
    if constants.HF_HUB_OFFLINE or not _reachable(address):
        raise _not_here(name, source)
    print(f"vlmlab: {name} is not in the cache, fetching {source} from the hub", file=sys.stderr)
    try:
        return download_pretrained(facts)
    except (OSError, RuntimeError) as error:
        raise _not_here(name, source) from error


@contextlib.contextmanager
def _without_waiting(name: str) -> Iterator[None]:
    """Within, text towers of Hugging Face find their configuration and tokenizer in the cache alone if the hub does not answer.

    Each of their files would otherwise wait for the hub's retries, although it is there.
    """
    arch = name.partition("@")[0] if "@" in name else name.rpartition("/")[0]
    text = open_clip.get_model_config(arch)["text_cfg"] if arch in open_clip.list_models() else {}
    needed = "hf_model_name" in text or "hf_tokenizer_name" in text
    before = constants.HF_HUB_OFFLINE
    if needed and not before and not _reachable(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable(address: str) -> bool:
    """Whether anybody answers at an address, through the proxy if the environment names one; five seconds at most."""
    try:
        # An opener of its own: urlopen would go on with the proxy settings of the first request of this process.
        opener = urllib.request.build_opener()
        opener.open(urllib.request.Request(address, method="HEAD"), timeout=5).close()
    except urllib.error.HTTPError as error:
        return error.code not in (407, 502, 503, 504)  # what a proxy says that cannot reach the address
    except urllib.error.URLError as error:
        # A certificate that only this check does not know is for the download to judge.
        return isinstance(error.reason, ssl.SSLCertVerificationError)
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return True
