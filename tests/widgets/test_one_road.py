"""A panel's number is the one that `vlmlab run` gives for the same experiment, from the same copies in memory."""

from __future__ import annotations

import pytest

from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import run_experiment, shared_bank, shared_dataset
from vlmlab.widgets import MethodLab


@pytest.mark.parametrize(
    ("system", "dataset", "split", "changed"),
    [
        ("tip_adapter", "digits", "all", {"beta_steps": 5}),
        ("coop", "textures", "base", {"epochs": 2}),
        ("proda", "digits", "all", {"epochs": 1, "n_prompts": 2}),
    ],
)
def test_the_method_lab_agrees_with_the_command_line(monkeypatch, system, dataset, split, changed):
    monkeypatch.setenv("VLMLAB_STRICT", "1")
    panel = MethodLab(system=system, dataset=dataset, shots=2, seed=3, split=split)
    for name, value in changed.items():
        panel.settings.controls[name].value = (
            value if isinstance(panel.settings.controls[name].value, int) else str(value)
        )
    panel.start()
    experiment = Experiment(system, dataset, shots=2, seed=3, split=split, config=changed)
    result = run_experiment(experiment)
    run = panel.runs[-1]
    for name in ("accuracy", "base", "new"):
        if name in run:
            assert round(run[name], 4) == result["metrics"][name], name
            if name != "new":
                assert round(run[f"zero_{name}"], 4) == result["zero_shot"][name]
    panel.close()


def test_what_is_shared_has_one_copy():
    banks = [shared_bank("micro-vit"), shared_bank("micro-vit", "auto"), shared_bank("micro-vit", device="cpu")]
    assert all(bank is banks[0] for bank in banks)
    sets = [
        shared_dataset("digits"),
        shared_dataset("Digits"),
        shared_dataset("digits", None, False, False),
        shared_dataset("digits", root="/somewhere", download=True),
        shared_dataset("digits", None, False, True, 64, False),
    ]
    assert all(one is sets[0] for one in sets) and shared_dataset("digits", size=32) is not sets[0]


def test_a_folder_that_changed_is_read_again(tmp_path, monkeypatch):
    from PIL import Image

    for name in ("cat", "dog"):
        for split in ("train", "test"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (name == "cat" and "red") or "blue").save(tmp_path / split / name / "1.png")
    monkeypatch.chdir(tmp_path.parent)
    one = shared_dataset(str(tmp_path))
    assert shared_dataset(f"./{tmp_path.name}", size=32) is one
    Image.new("RGB", (8, 8), "green").save(tmp_path / "train" / "cat" / "2.png")
    assert len(shared_dataset(str(tmp_path)).train) == len(one.train) + 1
