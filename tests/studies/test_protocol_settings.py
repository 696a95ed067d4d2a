"""Under a protocol a system starts as its paper starts there; the settings are part of the experiment."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from vlmlab.datasets import PROTOCOLS
from vlmlab.registry import load_system, protocol_settings, registry
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import construct, run_experiment
from vlmlab.studies.splits import SPLITS
from vlmlab.studies.store import ResultStore

WORDS = "a photo of a"


def prepared(split: str, **config):
    return construct(Experiment("coop", "digits", shots=1, split=split, config=config)).prepare()


def test_coop_starts_from_four_words_on_half_of_the_classes_and_from_noise_on_all():
    words, noise = prepared("base"), prepared("all")
    assert torch.equal(words.context, words.prompts.words.float()) and len(words.context) == 4
    assert len(noise.context) == 16 and 0.015 < float(noise.context.detach().std()) < 0.025
    assert words.config == dataclasses.replace(noise.config, init=WORDS), "nothing else of the recipe changes"


def test_prograd_starts_from_the_template_there_on_an_embedded_backbone():
    splits = ("all", "base", "new")
    inits = {one: construct(Experiment("prograd", "digits", shots=1, split=one)).method.config.init for one in splits}
    assert inits == {"all": "random", "base": "template", "new": "template"}


@pytest.mark.parametrize(
    ("asked", "init", "vectors"),
    [
        ({"init": ""}, "", 16),
        ({"n_ctx": "8"}, "", 8),
        ({"n_ctx": 4}, WORDS, 4),
        ({"lr": 0.1}, WORDS, 4),
        ({"init": "the"}, "the", 1),
    ],
)
def test_what_the_user_sets_wins(asked, init, vectors):
    method = prepared("base", **asked)
    assert method.config.init == init and len(method.context) == vectors


def test_class_specific_contexts_are_not_replaced_by_shared_words():
    assert prepared("base", csc=True).context.shape[:2] == (5, 16)


def test_the_experiment_shows_the_settings_and_the_key_changes_exactly_with_them():
    base = Experiment("coop", "digits", split="base")
    assert dict(base.config) == {"init": WORDS} == base.as_json()["config"] and "init=a photo of a" in str(base)
    assert Experiment(**json.loads(json.dumps(base.as_json()))) == base
    assert base.key == Experiment("coop", "digits", split="base", config={"init": WORDS}).key
    without = {one: Experiment(one, "digits", split="base") for one in ("kgcoop", "maple", "tip_adapter", "zero_shot")}
    assert all(one.config == () for one in without.values())
    # Keys that vlmlab gave before it knew settings of a protocol.
    assert without["kgcoop"].key == "63b5ee7989df41a8" and Experiment("coop", "digits").key == "fc7757fce054c774"
    before = "2467e00d9fc1577b"  # of CoOp from noise, asked for without a setting
    assert before != base.key and before not in base.older_keys
    assert before not in (Experiment("coop", "digits", split="base", config={"init": ""}).older_keys)


def test_a_result_of_another_start_is_not_taken_for_it(tmp_path):
    store, old = ResultStore(tmp_path), {"system": "coop", "dataset": "digits", "split": "base", "config": {}}
    (tmp_path / "2467e00d9fc1577b.json").write_text(json.dumps({"experiment": old, "result": {"start": "noise"}}))
    assert store.get(Experiment("coop", "digits", split="base")) is None
    store.add(Experiment("coop", "digits", split="base"), {"start": "words"})
    store.add(Experiment("coop", "digits", split="base", config={"lr": 0.1}), {"start": "other rate"})
    store.add(Experiment("coop", "digits"), {"start": "all classes"})
    assert sorted(one["start"] for one in store.results(defaults=True)) == ["all classes", "words"]
    assert len(store.results()) == 4


def test_other_datasets_are_learned_for_from_words_too():
    one = Experiment("coop", "digits", targets=("flowers",))
    assert one.protocol == "cross-dataset" and dict(one.config) == {"init": WORDS}
    assert Experiment("coop", "objects", split="shift").config == (), "CoOp's own paper measured the shift, from noise"


def test_run_says_what_it_used():
    quick = {"epochs": 1}
    result = run_experiment(Experiment("coop", "digits", shots=1, split="base", config=quick, test_pictures=10))
    assert result["config"]["init"] == WORDS and {"base", "new"} <= result["metrics"].keys()


def test_what_is_read_from_the_sources_is_what_the_classes_have():
    assert {split.protocol for split in SPLITS.values()} <= set(PROTOCOLS)
    for key in registry():
        system = load_system(key)
        assert set(system.by_protocol) <= set(PROTOCOLS), key
        for protocol, settings in system.by_protocol.items():
            assert protocol_settings(key, protocol) == settings, key
            typed = {
                name: system.read_setting(name, value) for name, value in (settings | system.start_implies).items()
            }
            assert typed == settings | system.start_implies, key


def test_a_system_of_the_user_has_its_own(monkeypatch):
    from vlmlab import registry as table

    class Own(load_system("coop")):
        by_protocol = {"base-to-new": {"n_ctx": 2}}  # noqa: RUF012
        start_implies = {}  # noqa: RUF012

    Own.info = dataclasses.replace(Own.info, key="own")
    monkeypatch.setitem(table._registered, "own", Own)
    assert dict(Experiment("own", "digits", split="new").config) == {"n_ctx": 2}
    assert protocol_settings("nobody", "base-to-new") == {}
