"""Several panels that compute at once, and a cell beside them, give bit for bit what each gives alone."""

from __future__ import annotations

import threading

import pytest
import torch

from vlmlab.datasets import load_dataset
from vlmlab.features.bank import FeatureBank
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt, shared_bank
from vlmlab.widgets import MethodLab

TIMES = 10


@pytest.fixture(autouse=True)
def live(monkeypatch):
    monkeypatch.delenv("VLMLAB_STRICT", raising=False)


def panels() -> list[MethodLab]:
    """One draws random crops before it learns, the other one a random subset of its prompts at every step."""
    one, two = MethodLab(system="tip_adapter", shots=1, seed=1), MethodLab(system="proda", shots=1, seed=2)
    one.settings.controls["beta_steps"].value = 4
    two.settings.controls["epochs"].value = two.settings.controls["n_prompts"].value = 2
    return [one, two]


def shown(panel: MethodLab) -> tuple:
    panel.wait(120)
    assert panel.error == ""
    run = {name: value for name, value in panel.runs[-1].items() if name != "seconds"}
    return run, panel.losses


def cell() -> list[torch.Tensor]:
    """What somebody computes in the notebook meanwhile: a system with dropout, and numbers of their own."""
    torch.manual_seed(5)
    drawn = [torch.rand(4) for _ in range(20)]
    method = adapt(Experiment("clip_lora", "digits", shots=1, seed=1, config={"steps": 2})).method
    return [*drawn, *(p.detach().clone() for p in method.parameters()), torch.rand(4)]


@pytest.mark.slow
def test_two_panels_and_a_cell_at_once():
    alone = []
    for panel in panels():
        panel.start()
        alone.append(shown(panel))
        panel.close()
    expected = cell()
    for _ in range(TIMES):
        together = panels()
        for panel in together:
            panel.start()
        found = cell()
        assert [shown(panel) for panel in together] == alone
        assert all(a.equal(b) for a, b in zip(found, expected, strict=True))
        for panel in together:
            panel.close()


def test_feature_files_that_are_written_at_once(tmp_path, monkeypatch):
    backbone, pictures = shared_bank("micro-vit").backbone, load_dataset("digits").train.subset(range(24))

    def written(folder, at_once: bool) -> dict[str, bytes]:
        monkeypatch.setenv("VLMLAB_CACHE", str(folder))
        jobs = [
            threading.Thread(target=FeatureBank(backbone).views, args=(pictures.subset(range(k, 24)), 2, k))
            for k in range(3)
        ]
        for job in jobs:
            job.start()
            if not at_once:
                job.join()
        for k in range(50):
            torch.manual_seed(k)
        for job in jobs:
            job.join()
        return {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")}

    alone = written(tmp_path / "alone", at_once=False)
    assert len(alone) == 6
    for k in range(TIMES):
        assert written(tmp_path / str(k), at_once=True) == alone
