import re

import pytest

from tests.studies.conftest import tiny_backbone
from vlmlab.datasets import load_dataset
from vlmlab.datasets.catalog import BY_NAME
from vlmlab.datasets.hierarchy import hierarchy_of
from vlmlab.errors import VlmlabError
from vlmlab.registry import registry
from vlmlab.studies import bench


def difference(measurement: bench.Measurement) -> float:
    """The difference of gradients that the note tells."""
    return float(re.search(r"gradients differ by (\S+) of", measurement.note).group(1))


@pytest.fixture
def tiny(toys, monkeypatch):
    monkeypatch.setattr(bench, "load_backbone", lambda name: tiny_backbone())
    monkeypatch.setattr(bench, "load_dataset", lambda name: toys)
    return toys


def test_cocoop_at_once_and_one_picture_at_a_time_have_the_same_gradients(tiny, monkeypatch):
    measured = bench._cocoop_step()
    assert difference(measured) < 1e-5 and measured.ratio == measured.baseline / measured.value
    inner = bench._full_length
    monkeypatch.setattr(
        bench, "_full_length", lambda tower, prompts, context: inner(tower, prompts, context.roll(1, -1))
    )
    assert difference(bench._cocoop_step()) > 1e-3


def test_a_fit_is_measured_in_seconds_and_memory(toys, monkeypatch):
    monkeypatch.setattr(bench, "FIT_SHOTS", 2)
    inner = bench.adapt

    def quick(experiment):
        settings = (("epochs", 2), ("n_ctx", 4))
        return inner(bench.Experiment(experiment.system, experiment.dataset, "tiny", experiment.shots, config=settings))

    monkeypatch.setattr(bench, "adapt", quick)
    measured = bench.bench(["fit.coop"])
    assert set(measured) == {"fit.coop.seconds", "fit.coop.memory"}
    assert measured["fit.coop.seconds"]["baseline"] == 60 and measured["fit.coop.seconds"]["value"] > 0
    assert measured["fit.coop.memory"]["value"] > 50 and "64 numbers learned" in measured["fit.coop.memory"]["note"]


@pytest.mark.parametrize("key", registry())
def test_every_system_is_fitted_on_a_dataset_that_has_what_it_learns_from(key):
    tasks, name = set(registry()[key].tasks), bench.fitted_on(key)
    assert tasks & set(BY_NAME[name].tasks)
    if "hierarchical classification" in tasks:
        assert hierarchy_of(load_dataset(name)).inner


def test_without_names_the_long_ones_are_left_out(monkeypatch):
    one = bench.Measurement(1.23456, "s", None, None, "")
    monkeypatch.setattr(bench, "MEASUREMENTS", {"short": lambda: one})
    monkeypatch.setattr(bench, "LONG", {"fits": lambda: {"fit.coop.seconds": one, "fit.tpt.seconds": one}})
    assert list(bench.bench()) == ["short"] and bench.bench()["short"]["value"] == 1.235
    assert list(bench.bench(["fits", "short"])) == ["fit.coop.seconds", "fit.tpt.seconds", "short"]


@pytest.mark.parametrize(("name", "said"), [("world_", "did you mean world"), ("fit.cop", "did you mean fit.coop")])
def test_an_unknown_measurement_is_refused_before_anything_is_measured(name, said, monkeypatch):
    monkeypatch.setitem(bench.MEASUREMENTS, "world", lambda: pytest.fail("it was measured"))
    with pytest.raises(VlmlabError, match=said):
        bench.bench(["world", name])
