"""From a name to a backbone, and what is said when that fails."""

from __future__ import annotations

import functools
import json
import math
import shutil
import socket
import subprocess
import sys
import threading
import time

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from safetensors.torch import load_file, save_file

from vlmlab.backbones import load_backbone, loading
from vlmlab.datasets.task import Task
from vlmlab.errors import VlmlabError
from vlmlab.features.bank import FeatureBank
from vlmlab.files import data_path
from vlmlab.learning.evaluate import predict
from vlmlab.learning.fit import fit
from vlmlab.methods.text_prompt.prompts import assemble
from vlmlab.registry import load_system
from vlmlab.testing import toys

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "layers": 1, "width": 64},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """An architecture `tiny-test` that open_clip knows, and a folder with its weights in several formats."""
    folder = tmp_path_factory.mktemp("checkpoints")
    (folder / "tiny-test.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny-test.json")
    torch.manual_seed(0)
    state = open_clip.model.CLIP(**TINY).state_dict()
    save_file(state, folder / "plain.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, folder / "trained.pt")
    marks = {mark: torch.tensor(1) for mark in loading.OPENAI_MARKS}
    torch.save({k: v.half() for k, v in state.items()} | marks, folder / "openai.pt")
    save_file({k: v for k, v in state.items()} | {"visual.proj": torch.zeros(64, 8)}, folder / "other.safetensors")
    (folder / "broken.safetensors").write_bytes((folder / "plain.safetensors").read_bytes()[:5000])
    (folder / "broken.pt").write_bytes(b"PK" + bytes(100))
    return folder


def message(name, **options):
    with pytest.raises(VlmlabError) as caught:
        load_backbone(name, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("file", ["plain.safetensors", "trained.pt"])
def test_open_clips_checkpoints(checkpoints, file):
    backbone = load_backbone(f"tiny-test@{checkpoints / file}", device="cpu")
    torch.manual_seed(0)
    twin = open_clip.model.CLIP(**TINY).eval()
    images, tokens = torch.randn(2, 3, 32, 32), backbone.text.tokenize(["a cat", "a dog on a hill"])
    assert tokens.shape == (2, 16)
    with torch.no_grad():
        assert (backbone.encode_image(images) - twin.encode_image(images)).abs().max() < 1e-5
        assert (backbone.encode_text(tokens) - twin.encode_text(tokens)).abs().max() < 1e-5
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not backbone.embedded and not backbone.train().model.training


def test_openais_checkpoints_get_quick_gelu_and_float32(checkpoints):
    kinds = {}
    for file in ("openai.pt", "plain.safetensors"):
        backbone = load_backbone(f"tiny-test@{checkpoints / file}", device="cpu")
        kinds[file] = any(isinstance(m, QuickGELU) for m in backbone.model.modules())
        assert backbone.dtype == torch.float32
    assert kinds == {"openai.pt": True, "plain.safetensors": False}


def test_another_architectures_checkpoint_names_the_first_tensor(checkpoints):
    text = message(f"tiny-test@{checkpoints / 'other.safetensors'}")
    assert "visual.proj" in text and "[64, 8]" in text and "[64, 32]" in text


@pytest.mark.parametrize("file", ["broken.safetensors", "broken.pt"])
def test_damaged_checkpoints(checkpoints, file):
    assert file in message(f"tiny-test@{checkpoints / file}")


@pytest.mark.parametrize("content", [[1, 2, 3], torch.zeros(3), {"epoch": 3}, {"state_dict": [1]}])
def test_a_file_that_is_no_state_dict(checkpoints, content):
    torch.save(content, checkpoints / "strange.pt")
    assert "strange.pt holds no state dict of tensors" in message(f"tiny-test@{checkpoints / 'strange.pt'}")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_checkpoint_of_training_that_diverged_is_refused(checkpoints, value):
    torch.manual_seed(0)
    state = open_clip.model.CLIP(**TINY).state_dict()
    state["visual.proj"][3, 2] = value
    save_file(state, checkpoints / "diverged.safetensors")
    text = message(f"tiny-test@{checkpoints / 'diverged.safetensors'}")
    assert "visual.proj has numbers that are not finite" in text


def test_a_checkpoint_without_the_right_to_read_it(checkpoints, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(loading, "load_file", refuse)
    assert "plain.safetensors (Permission denied)" in message(f"tiny-test@{checkpoints / 'plain.safetensors'}")


def test_a_checkpoint_that_carries_code_is_not_run(checkpoints):
    class Bomb:
        def __reduce__(self):
            return (open, (str(checkpoints / "exploded"), "w"))

    torch.save({"state_dict": Bomb()}, checkpoints / "bomb.pt")
    assert "cannot be read as plain weights" in message(f"tiny-test@{checkpoints / 'bomb.pt'}")
    assert not (checkpoints / "exploded").exists()


def test_missing_file_and_unknown_names():
    assert "nowhere.pt" in message("ViT-B-32@nowhere.pt")
    assert "micro-vit" in message("micro-vti")
    assert "ViT-B-32" in message("ViT-B-23@nowhere.pt")
    assert "ViT-B-32/openai" in message("ViT-B-32/openia")
    assert "float32" in message("micro-vit", precision="float23")
    assert "gpu9" in message("micro-vit", device="gpu9")


def test_without_a_network_one_line_and_no_waiting(monkeypatch, capsys):
    monkeypatch.setattr(loading, "_cached", lambda facts: None)
    monkeypatch.setattr(loading, "_reachable", lambda address: False)
    monkeypatch.setattr(loading, "download_pretrained", lambda facts: pytest.fail("it tried to fetch"))
    text = message("ViT-B-32/openai")
    assert "ViT-B-32/openai" in text and loading.constants.HF_HUB_CACHE in text and "micro-vit" in text
    assert not capsys.readouterr().err  # one line in all


@pytest.mark.parametrize(
    ("name", "there", "offline"),
    [("xlm-roberta-base-ViT-B-32@w.pt", False, True), ("xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k", False, True),
     ("xlm-roberta-base-ViT-B-32@w.pt", True, False), ("ViT-B-32@w.pt", False, False)],
)  # fmt: skip
def test_what_a_text_tower_needs_from_the_hub_is_not_waited_for(name, there, offline, monkeypatch):
    seen = []
    monkeypatch.setattr(loading.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(loading, "_reachable", lambda address: there)
    monkeypatch.setattr(loading, "_opened", lambda name: seen.append(loading.constants.HF_HUB_OFFLINE) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load_backbone(name)
    assert seen == [offline] and loading.constants.HF_HUB_OFFLINE is False


def test_embedded_backbone_and_half_precision():
    backbone = load_backbone("micro-vit", device="cpu")
    assert backbone.embedded and backbone.image_size == 64 and backbone.embed_dim == 128
    images, texts = torch.randn(2, 3, 64, 64), ["a red car", "a tree"]
    half = load_backbone("micro-vit", device="cpu", precision="bfloat16")
    assert half.dtype == torch.bfloat16 and torch.equal(half.logit_scale, backbone.logit_scale)
    with torch.no_grad():
        for full, rough in (
            (backbone.encode_image(images), half.encode_image(images)),
            (backbone.encode_text(texts), half.encode_text(texts)),
        ):
            assert rough.dtype == torch.float32
            assert torch.cosine_similarity(full, rough).min() > 0.99
    assert backbone.fingerprint() != half.fingerprint()


def test_tampered_embedded_weights(tmp_path, monkeypatch):
    shutil.copytree(data_path("backbones"), tmp_path / "backbones")
    monkeypatch.setenv("VLMLAB_DATA", str(tmp_path))
    file = tmp_path / "backbones" / loading.manifest()["micro-vit"]["weights"][-1]
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    text = message("micro-vit")
    assert file.name in text and "vlmlab build micro-vit" in text


def test_the_catalogue_needs_no_torch():
    code = "import sys, vlmlab.backbones.catalog as c; assert c.BACKBONES; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


# -- checkpoints as training programs save them

WRAPPED = {
    "model": lambda state: {"model": state, "optimizer": {"state": {}}, "epoch": 3},
    "model_state_dict": lambda state: {"model_state_dict": state, "epoch": 3, "loss": 0.5},
    "two wrappers": lambda state: {"state_dict": {"model": state}},
    "_orig_mod.": lambda state: {f"_orig_mod.{k}": v for k, v in state.items()},
    "module._orig_mod.": lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()},
    "model.": lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}},
    "towers compiled": lambda state: {k.replace("visual.", "visual._orig_mod."): v for k, v in state.items()},
    "a fact beside": lambda state: state | {"epoch": 3},
}


@pytest.fixture(scope="module")
def state(checkpoints):
    return load_file(checkpoints / "plain.safetensors")


@pytest.mark.parametrize("kind", WRAPPED)
def test_weights_are_found_in_what_is_wrapped_around_them(checkpoints, state, tmp_path, kind):
    torch.save(WRAPPED[kind](state), tmp_path / "w.pt")
    model = load_backbone(f"tiny-test@{tmp_path / 'w.pt'}", device="cpu").model
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items() if key in state)


@pytest.mark.parametrize("kind", WRAPPED)
def test_openai_s_marks_mean_quick_gelu_in_any_wrapper(checkpoints, state, tmp_path, kind):
    marks = {mark: torch.tensor(1) for mark in loading.OPENAI_MARKS}
    torch.save(WRAPPED[kind](state | marks), tmp_path / "w.pt")
    model = load_backbone(f"tiny-test@{tmp_path / 'w.pt'}", device="cpu").model
    assert any(isinstance(module, QuickGELU) for module in model.modules())


def test_a_stranger_among_the_weights_is_named(checkpoints, state, tmp_path):
    torch.save(
        {"state_dict": {f"model.{k}": v for k, v in state.items()} | {"loss.weight": torch.ones(2)}}, tmp_path / "w.pt"
    )
    assert "have loss.weight, which" in message(f"tiny-test@{tmp_path / 'w.pt'}")


def test_an_architecture_with_a_quick_gelu_twin_says_that_the_file_cannot_tell(checkpoints, state, tmp_path, recwarn):
    load_backbone(f"tiny-test@{checkpoints / 'plain.safetensors'}", device="cpu")
    assert not [w for w in recwarn if "QuickGELU" in str(w.message)]
    (tmp_path / "tiny-test-quickgelu.json").write_text(json.dumps(TINY | {"quick_gelu": True}))
    open_clip.add_model_config(tmp_path / "tiny-test-quickgelu.json")
    try:
        for file, said in (("plain.safetensors", 1), ("trained.pt", 1), ("openai.pt", 0)):
            recwarn.clear()
            load_backbone(f"tiny-test@{checkpoints / file}", device="cpu")
            told = [str(w.message) for w in recwarn if "QuickGELU" in str(w.message)]
            assert len(told) == said and all("tiny-test-quickgelu@" in text for text in told)
        recwarn.clear()
        load_backbone(f"tiny-test-quickgelu@{checkpoints / 'plain.safetensors'}", device="cpu")
        assert not [w for w in recwarn if "QuickGELU" in str(w.message)]
    finally:
        open_clip.factory._MODEL_CONFIGS.pop("tiny-test-quickgelu")


def test_a_logit_bias_as_siglip_trains_it_is_taken(checkpoints, state, tmp_path):
    save_file(state | {"logit_bias": torch.tensor(-9.5)}, tmp_path / "biased.safetensors")
    model = load_backbone(f"tiny-test@{tmp_path / 'biased.safetensors'}", device="cpu").model
    assert float(model.logit_bias) == -9.5


def test_weights_of_another_resolution_are_opened_at_theirs(checkpoints, tmp_path):
    torch.manual_seed(1)
    large = open_clip.model.CLIP(**TINY | {"vision_cfg": TINY["vision_cfg"] | {"image_size": 64}}).eval()
    save_file(large.state_dict(), tmp_path / "large.safetensors")
    with pytest.warns(UserWarning, match="opened at the 64 x 64 pixels"):
        backbone = load_backbone(f"tiny-test@{tmp_path / 'large.safetensors'}", device="cpu")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert backbone.image_size == 64 and torch.allclose(
            backbone.model.encode_image(images), large.encode_image(images), atol=1e-5
        )


def test_another_context_length_is_called_that(checkpoints, state, tmp_path):
    save_file(state | {"positional_embedding": torch.zeros(248, 64)}, tmp_path / "long.safetensors")
    assert "they are of another context length" in message(f"tiny-test@{tmp_path / 'long.safetensors'}")


# -- the network


def listening(answer: bytes):
    """The address of a server that gives every caller this answer, and then says no more."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                caller, _ = server.accept()
            except OSError:
                return
            caller.recv(4096)
            caller.sendall(answer)
            caller.close()

    threading.Thread(target=serve, daemon=True).start()
    return server, f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("answer", [None, b"", b"HTTP/1.1 502 Bad Gateway\r\n\r\n", b"nonsense\r\n\r\n"])
def test_a_dead_proxy_costs_seconds_at_most(monkeypatch, answer):
    server, proxy = listening(answer or b"")
    if answer is None:
        server.close()  # nobody listens
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr(loading, "_cached", lambda facts: None)
    monkeypatch.setattr(loading, "download_pretrained", lambda facts: pytest.fail("it tried to fetch"))
    began = time.monotonic()
    assert "cannot be reached" in message("ViT-B-32/openai")
    assert time.monotonic() - began < 6
    server.close()


@pytest.mark.parametrize(("status", "there"), [("200 OK", True), ("404 Not Found", True), ("503 Unavailable", False)])
def test_an_address_that_answers_is_reached(monkeypatch, status, there):
    server, address = listening(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert loading._reachable(address) is there
    server.close()


# -- SigLIP 2


SIGLIP2 = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 32, "timm_model_name": "vit_base_patch16_siglip_224", "timm_model_pretrained": False,
        "timm_pool": "map", "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2, "no_causal_mask": True,
        "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"},
    },
}  # fmt: skip
"""open_clip's ViT-B-16-SigLIP2 with CLIP's tokenizer (its own is on the hub) and a fraction of the size."""


@pytest.fixture(scope="module")
def siglip2(tmp_path_factory):
    """A small SigLIP 2, through a checkpoint of its architecture, and open_clip's own model beside it."""
    folder = tmp_path_factory.mktemp("siglip2")
    entry = timm.models.vision_transformer.vit_base_patch16_siglip_224
    small = functools.partial(entry, img_size=32, embed_dim=64, depth=2, num_heads=2)
    with pytest.MonkeyPatch.context() as patch:
        # timm's architecture of this name, narrower: open_clip passes no width on.
        patch.setitem(timm.models._registry._model_entrypoints, "vit_base_patch16_siglip_224", small)
        (folder / "tiny-sigmoid.json").write_text(json.dumps(SIGLIP2))
        open_clip.add_model_config(folder / "tiny-sigmoid.json")
        torch.manual_seed(0)
        twin = open_clip.create_model("tiny-sigmoid").eval()
        save_file(twin.state_dict(), folder / "weights.safetensors")
        yield load_backbone(f"tiny-sigmoid@{folder / 'weights.safetensors'}", device="cpu"), twin
    open_clip.factory._MODEL_CONFIGS.pop("tiny-sigmoid")


def test_siglip_2_gives_the_features_of_open_clip(siglip2):
    backbone, twin = siglip2
    assert float(backbone.model.logit_bias) == -10 and not backbone.text.causal and backbone.image.kind == "timm"
    images, texts = torch.randn(2, 3, 32, 32), ["a cat", "a dog on a hill"]
    tokens = backbone.text.tokenize(texts)
    with torch.no_grad():
        torch.testing.assert_close(backbone.encode_image(images), twin.encode_image(images))
        torch.testing.assert_close(backbone.encode_text(texts), twin.encode_text(tokens))


def test_a_prompt_of_siglip_2_is_padded_to_its_whole_length_and_read_at_the_last_place(siglip2):
    backbone, twin = siglip2
    names = ["cat", "fire engine"]
    prompts = assemble(backbone.text, names, "a photo of a")
    assert prompts.names.tolist() == [1, 2] and len(prompts.words) == 4
    features = prompts.features(backbone.text, prompts.words)
    with torch.no_grad():
        expected = twin.encode_text(backbone.text.tokenize([f"a photo of a {name}." for name in names]))
        torch.testing.assert_close(features, expected)
        order = prompts.order(4)
        torch.testing.assert_close(prompts.features_around(backbone.text, prompts.words, order), expected)


@pytest.mark.parametrize("key", ["zero_shot", "coop", "tip_adapter", "tda"])
def test_systems_run_on_siglip_2(siglip2, key):
    backbone, data = siglip2[0], toys.dataset("scenes")
    system = load_system(key)
    settings = {"epochs": 2, "n_ctx": 4} if key == "coop" else {}
    method = system(backbone, system.configure(backbone, **settings))
    task = Task(backbone, data, 2, seed=1)
    bank = FeatureBank(backbone, disk=False)
    record = fit(method, task.seen_by(system.info.setup), bank=bank)
    scores = predict(method, task.test, bank)
    assert scores.shape == (20, 10) and scores.isfinite().all()
    if key == "coop":
        assert len(record.losses) == 2 and all(math.isfinite(loss) for loss in record.losses)
        assert method.context.grad.abs().sum() > 0
    if key == "zero_shot":  # the bias of the sigmoid moves all scores of an image alike
        with torch.no_grad():
            images = backbone.preprocess(task.test.images())
            f, w = F.normalize(backbone.encode_image(images), dim=-1), method.classifier
        torch.testing.assert_close(scores.softmax(-1), (backbone.logit_scale * f @ w.T - 10).softmax(-1))


def test_visual_prompts_are_refused_by_siglip_2(siglip2):
    with pytest.raises(VlmlabError, match="no prompt tokens"):
        load_system("maple")(siglip2[0])
