"""OpenSeg by what captions say: only the captions differ, and what is measured is not measured again."""

import pytest

from vlmlab.datasets.captions import said
from vlmlab.errors import VlmlabError
from vlmlab.features.bank import FeatureBank
from vlmlab.files import read_lines
from vlmlab.studies import caption_names
from vlmlab.testing import toys


def test_all_names_of_an_image_are_said_and_nothing_else_changes():
    dataset = toys.dense_dataset()
    train = caption_names.all_names(dataset.train.subset([3, 1]), dataset.classes)
    told = said([train.caption(i) for i in range(2)], dataset.classes)
    assert told.tolist() == dataset.train.labels[[3, 1]].tolist()
    assert (train.images(0) == dataset.train.images(3)).all() and train.truth(0) is not None
    assert dataset.train.caption(3) != train.caption(0)  # the first set keeps its own


def test_the_lines_differ_by_what_is_said():
    bank = FeatureBank(toys.backbone(), disk=False)
    settings = {"epochs": 1, "queries": 5, "batch_size": 4}
    dataset = toys.dense_dataset()
    rows = {c: caption_names.measured(dataset, bank, c, 1, settings) for c in caption_names.CAPTIONS}
    assert rows["none"]["names_said"] == 0 and rows["all names"]["names_said"] == rows["all names"]["names_shown"]
    assert {row["images"] for row in rows.values()} == {6} and all("miou_new" in row for row in rows.values())
    assert set(rows["none"]) == set(caption_names.COLUMNS)


def test_what_is_there_is_not_measured_again_and_other_files_are_refused(tmp_path, capsys):
    path, asked = tmp_path / "rows.csv", []

    def measure(captions, seed):
        asked.append((captions, seed))
        return {"captions": captions, "seed": seed}

    for seeds in ([1], [1, 2]):
        caption_names.study(path, seeds, measure, echo=lambda _: None)
    assert asked == [(c, s) for s in (1, 2) for c in caption_names.CAPTIONS]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(VlmlabError, match="--out"):
        read_lines(path, caption_names.COLUMNS)
    assert caption_names.main(["--out", str(path)]) == 2 and "--out" in capsys.readouterr().err
