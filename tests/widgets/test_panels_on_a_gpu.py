"""Every panel that computes, and the report, draw from a GPU: a pretended one, which refuses to mix its tensors with those of the CPU."""

from __future__ import annotations

import pytest
import torch
from matplotlib.figure import Figure

from tests.torture import LONG
from tests.widgets.test_panels import QUICK as FIRST
from tests.widgets.test_section_six import PANELS as SECTION_SIX
from vlmlab.backbones import loading
from vlmlab.backbones.backbone import Backbone
from vlmlab.studies import adaptation as study
from vlmlab.studies import run
from vlmlab.testing.pretended_gpu import GPU, pretended_gpu
from vlmlab.views import charts, pictures
from vlmlab.widgets.support import cache_over

PANELS = FIRST | SECTION_SIX
WITHOUT_A_BACKBONE = {"guess", "protocol box", "method lab"}  # the last one waits for its button
SLOW = {
    "few-shot board",
    "transport plan",
    "frontier",
    "attention viewer",
}  # each several seconds; the long form has them


@pytest.fixture(scope="module")
def gpu():
    """A machine on which "auto" is the pretended GPU; what was opened on it is not left behind."""
    real = loading.device_of
    with pytest.MonkeyPatch.context() as patch, pretended_gpu() as gpu:
        patch.setenv("VLMLAB_STRICT", "1")
        for module in (loading, run):
            patch.setattr(module, "device_of", lambda device: GPU if device == "auto" else real(device))
        run.shared_bank.cache_clear()
        cache_over.cache_clear()
        yield gpu
        run.shared_bank.cache_clear()
        cache_over.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PANELS if LONG or name not in SLOW])
def test_a_panel_draws_from_a_gpu(name, gpu, monkeypatch):
    encoded, real = [], Backbone.encode_image

    def encode_image(backbone, images):
        encoded.append(backbone.device)
        return real(backbone, images)

    monkeypatch.setattr(Backbone, "encode_image", encode_image)
    panel = PANELS[name]()
    still = panel.static()
    assert isinstance(still, Figure) and panel.error == ""
    assert all(isinstance(value, int | float | str | bool | list | None) for value in panel.facts().values())
    panel.close()
    backbones = [bank.backbone for bank in run._banks._made.values()]
    assert all(backbone.device == torch.device("cuda:0") for backbone in backbones)
    assert set(encoded) <= {torch.device("cuda:0")} and (backbones or name in WITHOUT_A_BACKBONE)


@pytest.mark.slow
def test_the_report_draws_from_a_gpu(gpu, tmp_path):
    """What its notebook computes and draws, in this process."""
    settings = ["coop.epochs=1", "coop.n_ctx=2"]
    plan = study.Plan(
        ["coop", "tip_adapter"],
        ["digits"],
        "micro-vit",
        [1],
        [1],
        0,
        tmp_path,
        base_new=["coop"],
        test_pictures=20,
        settings=settings,
    )
    results = study.run(plan)
    assert results.failures == [] and [len(results.few_shot), len(results.base_new)] == [2, 1]
    inside = study.look_inside(plan)
    photographs = study.photographs("micro-vit", ["cat", "tree"], most=1, dense=1, side=64)
    figures = [
        charts.few_shot_curves(results.few_shot), charts.base_new_bars(results.base_new), charts.learning_curve(inside.losses, ""),
        *(charts.confusion(matrix, inside.classes, title) for title, matrix in inside.confusions.items()),
        pictures.attention_grid(*inside.attention), pictures.word_predictions(*photographs.predictions),
        pictures.dense_maps(*photographs.maps),
    ]  # fmt: skip
    assert all(isinstance(figure, Figure) for figure in figures)
    assert study.words_table(inside.words) and study.cost_table(results.few_shot) and study.settings_table(results)
    assert gpu.autocast == {torch.bfloat16}
    assert all(bank.backbone.device == torch.device("cuda:0") for bank in run._banks._made.values())
