"""Chapters take parameters of papermill: one runs here with others than its own, and its results are those of them."""

import nbformat
import pytest

from vlmlab.book.execute import STILL, chapters


def test_every_chapter_takes_parameters():
    for name, path in chapters().items():
        cells = [cell for cell in nbformat.read(path, 4).cells if "parameters" in cell.metadata.get("tags", ())]
        assert len(cells) == 1, name


@pytest.mark.slow
def test_a_chapter_runs_with_other_parameters(tmp_path, monkeypatch):
    from papermill import execute_notebook

    from vlmlab.studies.kernel import OwnKernel

    for name, value in STILL.items():
        monkeypatch.setenv(name, value)
    path, out = chapters()["06_0_motivation_and_setups"], tmp_path / "out.ipynb"
    execute_notebook(
        str(path),
        str(out),
        parameters={"TASK": "textures", "SEEDS": [1]},
        kernel_name="python3",
        kernel_manager_class=OwnKernel,
        progress_bar=False,
        cwd=str(path.parent),
    )
    shown = {
        output["data"]["text/plain"]
        for cell in nbformat.read(out, 4).cells
        for output in cell.get("outputs", ())
        if "text/markdown" in output.get("data", {})
    }
    (setups,) = [text for text in shown if text.startswith("setup | system | sees")]
    assert "all labels (24 per class)" in setups and "±" not in setups, "one seed has no deviation"
    assert any("here textures" in text for text in shown), (
        "the published figures stand beside the dataset that was asked"
    )
