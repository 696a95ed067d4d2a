"""TDA, MTA and ZERO: the official numbers, and what each exists for."""

import types

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, tiny_backbone
from tests.methods.fakes import task
from vlmlab.methods.method import Batch
from vlmlab.methods.other.mta import MTA
from vlmlab.methods.other.tda import TDA
from vlmlab.methods.other.zero import Zero


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def with_given(system, numbers, **settings):
    """The system with the class vectors and the scale that the official numbers were computed with."""
    method = system(
        types.SimpleNamespace(logit_scale=float(numbers["scale"]), embedded=False), system.Config(**settings)
    )
    method.classifier, method.classes = numbers["w"], ["a"] * len(numbers["w"])
    return method


@pytest.fixture(scope="module", params=["tda", "mta"])
def name(request):
    return request.param


def numbers_of(name):
    return {key: torch.from_numpy(value) for key, value in golden(name).items()}


@pytest.mark.parametrize("caches", ["both", "positive", "negative"])
def test_tda_has_the_numbers_of_the_official_implementation(caches):
    numbers = numbers_of("tda")
    left_out = {"both": {}, "positive": {"negative_shots": 0}, "negative": {"positive_shots": 0}}[caches]
    found = with_given(TDA, numbers, **left_out).stream(numbers["f"])
    same(found, numbers[caches])
    assert not torch.allclose(found, float(numbers["scale"]) * numbers["f"] @ numbers["w"].T)


def test_tda_takes_a_batch_as_a_stream_whose_order_follows_from_the_seed():
    numbers = numbers_of("tda")
    method, f = with_given(TDA, numbers), numbers["f"]
    method.order_seed = 3
    order = torch.randperm(len(f), generator=torch.Generator().manual_seed(3))
    batch = Batch(features=f)
    first = method.logits(batch)
    same(first[order], method.stream(f[order]))
    assert torch.equal(method.logits(batch), first)  # nothing stays behind
    method.order_seed = 4
    assert not torch.equal(method.logits(batch), first)


def test_tda_without_caches_is_zero_shot_prediction():
    numbers = numbers_of("tda")
    method = with_given(TDA, numbers, positive_shots=0, negative_shots=0)
    same(method.stream(numbers["f"]), float(numbers["scale"]) * numbers["f"] @ numbers["w"].T)


def test_mta_has_the_numbers_of_the_official_implementation():
    numbers = numbers_of("mta")
    batch = Batch(features=numbers["f"])
    same(with_given(MTA, numbers).logits(batch), numbers["logits"])
    same(with_given(MTA, numbers, lambda_q=1.0, lambda_y=0.5).logits(batch), numbers["logits_other"])


def test_mta_gives_spoiled_views_no_say():
    backbone = tiny_backbone("vit")
    method = MTA(backbone, MTA.configure(backbone, templates="photo"))
    method.prepare(task(CLASSES))
    near = F.normalize(
        method.classifier[0] + 0.02 * torch.randn(24, 64, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    views = torch.cat([near, method.classifier[1].expand(6, -1)])[None]
    mode, weight = method.mode(views)
    mean = F.normalize(views.mean(1), dim=-1)
    assert weight[0, :24].mean() > 3 * weight[0, 24:].mean()
    assert (mode @ method.classifier[0]) > (mean @ method.classifier[0])


def test_mta_survives_views_that_are_all_the_same():
    numbers = numbers_of("mta")
    f = numbers["f"][:, :1].expand(-1, 8, -1)
    same(with_given(MTA, numbers).logits(Batch(features=f)), float(numbers["scale"]) * f[:, 0] @ numbers["w"].T)


def test_zero_has_the_votes_of_the_official_implementation():
    numbers = numbers_of("zero")
    method = Zero(types.SimpleNamespace(logit_scale=1.0, embedded=False), Zero.Config())
    expected = numbers["votes"]
    assert (expected.sum(1) > int(0.3 * numbers["logits"].shape[1])).any()  # some ties were broken
    assert torch.equal(method.votes(numbers["logits"]).argmax(1), expected.argmax(1))
    assert torch.equal(method.votes(numbers["logits"]), expected)


def test_zero_breaks_a_tie_that_no_other_view_decides():
    method = Zero(types.SimpleNamespace(logit_scale=1.0, embedded=False), Zero.Config(selection=0.5))
    sure = torch.tensor([[9.0, 0, 0], [0, 9.0, 0]])
    rest = torch.tensor(
        [[0.0, 0.5, 1.0], [0.6, 0.0, 1.0]]
    )  # both name the third class; the surer one prefers the second
    rest = rest * torch.tensor([[2.0], [1.0]])
    assert method.votes(torch.cat([sure, rest])[None]).argmax() == 1
    all_vote = Zero(types.SimpleNamespace(logit_scale=1.0, embedded=False), Zero.Config(selection=1.0))
    assert all_vote.votes(sure[None]).tolist() == [[2, 1, 0]]
