import dataclasses

import numpy as np
import pytest

from vlmlab.datasets import ImageSet
from vlmlab.datasets.image_set import ArrayPictures
from vlmlab.errors import VlmlabError
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt, run_experiment, some

QUICK = (("epochs", "3"), ("n_ctx", "4"))


def colours(system: str, **facts) -> Experiment:
    return Experiment(system, "colours", "tiny", **({"shots": 4} | facts))


def test_a_result_has_what_the_command_line_promises(toys):
    result = run_experiment(colours("coop", config=QUICK, seed=2))
    promised = {"system", "dataset", "backbone", "shots", "seed", "split", "metrics", "zero_shot"}
    promised |= {"trainable_parameters", "seconds", "cpu_seconds", "peak_mb", "config", "versions"}
    assert promised <= set(result)
    assert (result["system"], result["dataset"], result["backbone"]) == ("coop", "colours", "tiny")
    assert (result["shots"], result["seed"], result["split"]) == (4, 2, "all")
    assert result["trainable_parameters"] == 4 * 16
    assert result["config"]["epochs"] == 3 and result["config"]["n_ctx"] == 4
    assert 0 <= result["metrics"]["accuracy"] <= 100 and set(result["metrics"]) == {"accuracy", "ece"}
    assert result["seconds"] > 0 and result["cpu_seconds"] > 0 and result["peak_mb"] > 50
    assert result["versions"].keys() >= {"vlmlab", "torch", "python"}


def test_zero_shot_stands_beside_every_system_and_is_the_same_there(toys):
    alone = run_experiment(colours("zero_shot"))
    assert alone["metrics"] == alone["zero_shot"] and alone["trainable_parameters"] == 0
    assert run_experiment(colours("tip_adapter"))["zero_shot"] == alone["metrics"]


def test_a_cache_of_colours_beats_a_random_text_encoder(toys):
    result = run_experiment(colours("tip_adapter"))
    assert result["metrics"]["accuracy"] > 80 > result["zero_shot"]["accuracy"]


def test_the_same_experiment_gives_the_same_numbers(toys):
    first, second = (run_experiment(colours("coop", config=QUICK)) for _ in range(2))
    for measured in ("seconds", "cpu_seconds", "peak_mb"):
        del first[measured], second[measured]
    assert first == second


def test_base_and_new_come_from_one_learning_on_base(toys):
    base = run_experiment(colours("coop", split="base", config=QUICK))["metrics"]
    new = run_experiment(colours("coop", split="new", config=QUICK))["metrics"]
    for name in ("base", "new", "harmonic_mean"):
        assert base[name] == new[name]
    assert base["accuracy"] == base["base"] and new["accuracy"] == base["new"]
    mean = 2 * base["base"] * base["new"] / (base["base"] + base["new"])
    assert base["harmonic_mean"] == pytest.approx(mean, abs=1e-3)
    task = adapt(colours("coop", split="new", config=QUICK)).task
    assert task.split == "base" and task.classes == ["red", "green"], "new classes must not be learned on"


def test_under_shift_the_same_system_meets_every_other_style(toys, monkeypatch):
    from vlmlab.studies import run, splits

    black = ArrayPictures(lambda: np.zeros((4, 32, 32, 3), np.uint8), "black")
    night = dataclasses.replace(toys, name="colours-night", test=ImageSet(black, np.arange(4), list("abcd")))
    for module in (run, splits):
        monkeypatch.setattr(module, "shifted_versions", lambda name: ("colours-night", "colours-again"))
    monkeypatch.setattr(run, "load_dataset", lambda name, **how: night if name == "colours-night" else toys)
    metrics = run_experiment(colours("tip_adapter", split="shift", config=(("passes", "0"),)))["metrics"]
    alone = run_experiment(colours("tip_adapter", config=(("passes", "0"),)))["metrics"]
    assert metrics["accuracy"] == metrics["colours-again"] == alone["accuracy"]
    assert metrics["colours-night"] == 25.0 < metrics["accuracy"], "at night all cows are black"
    assert metrics["shift"] == pytest.approx((metrics["colours-night"] + metrics["colours-again"]) / 2, abs=1e-3)


def test_targets_are_measured_by_their_own_classes_and_the_method_comes_back(toys, monkeypatch):
    from vlmlab.studies import run

    other = dataclasses.replace(toys, name="paints", classes=("scarlet", "lime", "navy", "snow"))
    monkeypatch.setattr(run, "load_dataset", lambda name, **how: other if name == "paints" else toys)
    experiment = colours("coop", config=QUICK, targets=("paints", "colours"))
    system, names = type(adapt(experiment).method), []
    inner = system.set_classes

    def spied(self, classes, templates):
        names.append(list(classes))
        inner(self, classes, templates)

    monkeypatch.setattr(system, "set_classes", spied)
    result = run_experiment(experiment)
    metrics = result["metrics"]
    assert metrics["colours"] == metrics["accuracy"]
    assert metrics["targets"] == pytest.approx((metrics["paints"] + metrics["colours"]) / 2, abs=1e-3)
    assert {"paints", "targets"} <= set(result["zero_shot"]) and result["targets"] == ["paints", "colours"]
    assert ["scarlet", "lime", "navy", "snow"] in names and names[-1] == list(toys.classes)


@pytest.mark.parametrize(
    ("second", "why"), [("paints", "what another target is called"), ("new", "the name of a metric")]
)
def test_targets_that_cannot_be_told_apart_are_refused(toys, monkeypatch, second, why):
    from vlmlab.studies import run

    named = {"./a/paints": "paints", f"./b/{second}": second}
    monkeypatch.setattr(
        run, "load_dataset", lambda name, **how: dataclasses.replace(toys, name=name.rsplit("/", 1)[-1])
    )
    with pytest.raises(VlmlabError, match=f"target '{second}' cannot be told apart: it is {why}; rename the folder"):
        adapt(colours("zero_shot", targets=tuple(named)))


def test_wrong_labels_are_learned_from_and_test_labels_stay(toys):
    clean, noisy = (run_experiment(colours("tip_adapter", noise=noise)) for noise in (0.0, 1.0))
    assert noisy["metrics"]["accuracy"] < clean["metrics"]["accuracy"] - 30
    assert noisy["zero_shot"] == clean["zero_shot"] and noisy["noise"] == 1.0 and "noise" not in clean


def test_a_part_of_the_test_pictures_is_even_and_the_same_for_every_seed(toys):
    some_of = [some(toys.test, most) for most in (0, 10**6, 9)]
    assert len(some_of[0]) == len(some_of[1]) == len(toys.test)
    assert some_of[2].labels.bincount().tolist() == [9 // len(toys.classes)] * len(toys.classes)
    first, second = (run_experiment(colours("zero_shot", seed=seed, test_pictures=9)) for seed in (0, 1))
    assert first["metrics"] == second["metrics"] and first["test_pictures"] == 9
    assert len(some(toys.test, 1)) == len(toys.classes)  # at least one of each


def test_a_dataset_without_other_styles_has_no_shift(toys):
    with pytest.raises(VlmlabError, match=r"no shifted versions of colours .*; choose objects"):
        run_experiment(colours("coop", split="shift"))


def test_a_system_bound_to_its_classes_has_no_new(toys):
    metrics = run_experiment(colours("tip_adapter", split="base"))["metrics"]
    assert metrics["base"] == metrics["accuracy"] and "new" not in metrics
    with pytest.raises(VlmlabError, match="cannot vote for other classes"):
        run_experiment(colours("tip_adapter", split="new"))


def test_after_measuring_new_classes_the_method_is_back_on_its_own(toys):
    from vlmlab.studies.run import _measured

    adapted = adapt(colours("coop", split="base", config=QUICK))
    _measured(adapted.method, adapted, colours("coop", split="base"))
    assert adapted.method.classes == ["red", "green"]


def test_training_stopped_by_the_user_is_measured_and_says_so(toys):
    result = run_experiment(colours("coop", config=QUICK), should_stop=lambda: True)
    assert result["stopped"] and "accuracy" in result["metrics"]


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        (colours("cop"), "unknown system 'cop'; did you mean coop"),
        (colours("coop", config=(("n_ctxx", "4"),)), "unknown setting 'n_ctxx'; did you mean n_ctx"),
        (colours("coop", config=(("n_ctx", "four"),)), "n_ctx .* not 'four'"),
        (colours("coop", config=(("lr", "-1"),)), "lr .* must lie between"),
        (colours("coop", shots=7), "class 'red' has only 6"),
    ],
)
def test_mistakes_are_told_before_anything_is_computed(toys, monkeypatch, experiment, message):
    monkeypatch.setattr("vlmlab.studies.run.fit", None)
    with pytest.raises(VlmlabError, match=message):
        run_experiment(experiment)


def test_a_system_asked_for_what_it_does_not_do_names_what_it_does():
    from vlmlab.errors import VlmlabError
    from vlmlab.studies.experiment import Experiment
    from vlmlab.studies.run import adapt

    with pytest.raises(VlmlabError, match=r"dualcoop does multi-label classification; digits has .* choose tableau"):
        adapt(Experiment("dualcoop", "digits", "micro-vit", 1, 1))
