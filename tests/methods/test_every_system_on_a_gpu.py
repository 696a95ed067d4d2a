"""Every system prepares, learns, stops, resumes and predicts on a GPU: a pretended one everywhere, a real one where there is one.

The pretended one computes on the CPU, so there the scores must be those of the CPU; a real one has bfloat16 within.
"""

import functools

import pytest
import torch

from vlmlab.features.bank import FeatureBank
from vlmlab.learning.evaluate import predict
from vlmlab.registry import load_system, registry
from vlmlab.testing import toys as contract
from vlmlab.testing.pretended_gpu import pretended_gpu


def on(device: str, monkeypatch) -> None:
    """Tasks and systems of the contract on this device, with a backbone and a bank of their own."""
    backbone = contract.backbone.__wrapped__()
    backbone.to(device=device)
    bank = FeatureBank(backbone, disk=False)
    monkeypatch.setattr(contract, "backbone", lambda: backbone)
    monkeypatch.setattr(contract, "bank", lambda: bank)


def scores(key: str, method) -> torch.Tensor:
    return predict(method, contract.task_for(key).test, contract.bank())


@functools.cache
def on_the_cpu(key: str) -> torch.Tensor:
    return scores(key, contract.fitted(key)[0])


def learn_and_resume(key: str, checkpoint):
    """(method, whether it learns) after a run that was stopped after a step and resumed."""
    contract.fitted(key, checkpoint=checkpoint, most=1)
    method, _ = contract.fitted(key, checkpoint=checkpoint)
    assert all(parameter.device.type == "cuda" for parameter in method.parameters())
    return method, checkpoint.exists()


@pytest.mark.parametrize("key", list(registry()))
def test_on_a_pretended_gpu(key, tmp_path, monkeypatch):
    wanted = on_the_cpu(key)
    with pretended_gpu() as gpu:
        on("cuda", monkeypatch)
        method, learns = learn_and_resume(key, tmp_path / "run.pt")
        assert gpu.autocast == ({torch.bfloat16} if learns else set())
        assert gpu.pinned or not learns, "images and their order go there from pinned memory"
        found = scores(key, method)
    assert found.device.type == "cpu"
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
@pytest.mark.parametrize("key", list(registry()))
def test_on_a_real_gpu(key, tmp_path, monkeypatch):
    on("cuda", monkeypatch)
    method, _ = learn_and_resume(key, tmp_path / "run.pt")
    assert torch.isfinite(scores(key, method)).all()
    assert load_system(key).info is method.info
