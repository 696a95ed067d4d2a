import re

import pytest
import torch

from tests.studies.conftest import tiny_backbone
from vlmlab.cli import main
from vlmlab.datasets import load_dataset
from vlmlab.datasets.catalog import BY_NAME
from vlmlab.datasets.hierarchy import hierarchy_of
from vlmlab.errors import VlmlabError
from vlmlab.registry import registry
from vlmlab.studies import bench, bench_dense, bench_device
from vlmlab.testing.pretended_gpu import pretended_gpu


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


def test_a_machine_is_measured_by_the_images_that_it_decodes_and_encodes(monkeypatch):
    monkeypatch.setitem(bench_device.FILES, "cpu", 12)
    monkeypatch.setitem(bench_device.AT_ONCE, "cpu", 4)
    monkeypatch.setattr(bench_device, "load_backbone", lambda name, device: tiny_backbone())
    measured = bench_device.images()
    assert measured.value > 0 and measured.baseline > 0 and measured.ratio == measured.value / measured.baseline
    assert "12 JPEG files of 400 x 400 decoded by no workers and encoded at 32 x 32" in measured.note


def test_a_gpu_is_measured(toys, monkeypatch):
    """On a pretended one, whose speed means nothing."""
    tower = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    monkeypatch.setattr(bench_device, "ENCODER", bench_device.ENCODER | {"vision_cfg": tower})
    monkeypatch.setattr(bench_device, "PRODUCT", 16)
    monkeypatch.setattr(bench_device, "SHOTS", 1)
    monkeypatch.setattr(bench_device, "FIT", {"epochs": 2, "n_ctx": 4})
    monkeypatch.setitem(bench_device.FILES, "cuda", 12)
    monkeypatch.setitem(bench_device.AT_ONCE, "cuda", 4)
    monkeypatch.setattr(bench_device, "load_dataset", lambda name: toys)
    monkeypatch.setattr(bench_device, "load_backbone", lambda name, device: tiny_backbone().to(device=device))
    with pretended_gpu() as gpu:
        measured = bench.bench(device="cuda")
    assert list(measured) == ["gpu.fit", "gpu.encoder", "gpu.images", "gpu.memory"]
    assert all(facts["note"].startswith("a pretended GPU: ") for facts in measured.values())
    assert all(measured[name]["value"] > 0 and measured[name]["ratio"] > 0 for name in list(measured)[:3])
    assert gpu.autocast == {torch.bfloat16}, "CoOp was fitted on it"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")
def test_without_a_gpu_it_is_one_line(capsys):
    assert main(["bench", "--device", "cuda"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err == "vlmlab: the device 'cuda' cannot be used here; choose cpu or auto\n"
    assert main(["bench", "world", "--device", "cuda"]) == 2 and "leave out world" in capsys.readouterr().err


@pytest.mark.parametrize("measure", [bench.cached_regions, bench.cached_tokens])
def test_an_epoch_of_a_dense_system_learns_the_same_from_what_is_cached(monkeypatch, measure):
    monkeypatch.setattr(bench_dense, "IMAGES", 8)
    monkeypatch.setattr(bench_dense, "AT_ONCE", 4)
    monkeypatch.setattr(bench_dense, "seconds_of", lambda work, times: work() and 2.0)
    measured = measure()
    assert float(re.search(r"losses differ by (\S+) of", measured.note).group(1)) < 1e-4
    assert measured.ratio == 1.0 and "8 images" in measured.note
