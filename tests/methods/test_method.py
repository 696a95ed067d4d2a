import dataclasses
import types

import pytest
import torch
from torch import nn

from tests.golden.tiny_clip import CLASSES, noise_images, tiny_backbone
from tests.methods.fakes import Pictures, task
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch, Method, Recipe, option
from vlmlab.registry import load_system, registry

FEW = types.SimpleNamespace(embedded=False)
EMBEDDED = types.SimpleNamespace(embedded=True)


class Bias(Method):
    """A system in a few lines: one number per class on top of the cosines."""

    @dataclasses.dataclass
    class Config(Recipe):
        start: float = option(0.5, "first value", 0.0, 1.0)
        words: str = option("", "words")
        loud: bool = option(False, "loud")
        epochs: int | None = option(None, "passes", 1, 100)

    embedded = {"lr": 0.5}  # noqa: RUF012

    def prepare(self, task):
        super().prepare(task)
        self.weights = self.backbone.class_embeddings(self.classes, self.templates)
        self.bias = nn.Parameter(torch.full((len(self.classes),), self.config.start))

    def logits(self, batch):
        return self.image_features(batch) @ self.weights.T + self.bias


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


def test_a_method_learns_and_saves_its_own_parameters_only(backbone):
    method = Bias(backbone)
    method.prepare(task(CLASSES))
    assert [name for name, _ in method.named_parameters()] == list(method.state_dict()) == ["bias"]
    assert method.trainable_parameters == 5
    loss = method.loss(Batch(images=noise_images(32), labels=torch.arange(8) % 5))
    loss.backward()
    assert method.bias.grad.abs().max() > 0 and all(p.grad is None for p in backbone.parameters())


def test_settings_of_the_paper_or_of_an_embedded_backbone():
    assert Bias.configure(FEW).lr == 0.002
    assert Bias.configure(EMBEDDED).lr == 0.5
    assert Bias.configure(EMBEDDED, lr=0.1).lr == 0.1


def test_who_asks_for_passes_gets_them(monkeypatch):
    monkeypatch.setitem(Bias.embedded, "most_steps", 100)
    assert Bias.configure(EMBEDDED).most_steps == 100 and Bias.configure(FEW).most_steps == 0
    assert Bias.configure(EMBEDDED, epochs=7).most_steps == 0
    assert Bias.configure(EMBEDDED, epochs=7, most_steps=9).most_steps == 9


def test_settings_may_be_text():
    config = Bias.configure(FEW, start="0.25", loud="true", epochs="7", optimizer="adamw", batch_size="8", words="a b")
    assert config == Bias.Config(start=0.25, loud=True, epochs=7, optimizer="adamw", batch_size=8, words="a b")
    assert Bias.configure(FEW, epochs="none").epochs is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("strat", 1, "did you mean start"),
        ("start", 2, "must lie between 0.0 and 1.0, not 2.0"),
        ("start", "nan", "must lie between"),
        ("start", "much", "takes a number, not 'much'"),
        ("batch_size", "2.5", "takes a whole number, not '2.5'"),
        ("loud", "maybe", "takes true or false, not 'maybe'"),
        ("start", None, "cannot be none"),
        ("optimizer", "adm", "did you mean adamw"),
        ("epochs", 0, "between 1 and 100"),
    ],
)
def test_wrong_settings_are_named(name, value, message):
    with pytest.raises(VlmlabError, match=message) as error:
        Bias.configure(FEW, **{name: value})
    assert "\n" not in str(error.value)


def test_nothing_to_train_is_said(backbone):
    with pytest.raises(VlmlabError, match="nothing to train"):
        Method(backbone).optimizer(10)


def test_encode_takes_pictures_of_any_number_and_size(backbone):
    pictures = Pictures([0] * 130)
    features = Method(backbone).encode(pictures)
    assert features.shape == (130, 64)
    whole = backbone.encode_image(backbone.preprocess(pictures.images(slice(None))))
    torch.testing.assert_close(features, whole, rtol=1e-4, atol=1e-5)
    mixed = Method(backbone).preprocess([Pictures([0], side=32).images(0), Pictures([0], side=50).images(0)])
    assert mixed.shape == (2, 3, 32, 32)


@pytest.mark.parametrize("key", ["zero_shot", "coop", "maple", "tip_adapter", "tip_adapter_f", "tpt", "maskclip"])
def test_systems_describe_themselves(key):
    system, info = load_system(key), registry()[key]
    assert system.info.key == key and info.paper.startswith("arXiv:")
    assert system.eats in ("features", "images", "views")
    config = system.Config()
    for field in dataclasses.fields(config):
        facts, value = field.metadata, getattr(config, field.name)
        assert facts["help"] and (not facts["choices"] or value in facts["choices"])
        assert value is None or facts["low"] is None or facts["low"] <= value <= facts["high"]
    assert system.configure(EMBEDDED, **system.embedded) == system.configure(EMBEDDED)
    for name, value in dataclasses.asdict(config).items():
        assert getattr(system.configure(FEW, **{name: str(value)}), name) == value


SMALL = {"promptsrc": {"depth": 2}, "cavpt": {"candidates": 3}}


@pytest.mark.parametrize("key", ["dualcoop", "plot", "vt_clip", "promptsrc", "cavpt"])
def test_what_is_kept_of_the_pictures_is_not_taken_for_crops(key, backbone):
    system = load_system(key)
    method = system(backbone, system.configure(backbone, **SMALL.get(key, {})))
    method.prepare(task(CLASSES, support=Pictures([i % 5 for i in range(8)])))
    labels = torch.arange(8) % 5
    if key == "dualcoop":
        labels = torch.eye(5, dtype=torch.long)[labels]

    def loss(**how):
        return float(method.loss(Batch(images=noise_images(32), labels=labels, **how)).detach())

    index = torch.arange(8)
    assert loss(index=index, cropped=True) == loss() != loss(index=index)


def test_a_sentence_has_one_place_for_the_name():
    from vlmlab.methods.templates import choose

    with pytest.raises(VlmlabError, match="more than one place"):
        choose("a {} and a {}", [])
