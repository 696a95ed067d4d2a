import json

import pytest

from vlmlab.cli import main
from vlmlab.errors import VlmlabError
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.store import ResultStore
from vlmlab.studies.table import COLUMNS, as_markdown, read_table, table, write_table


def result(
    system="coop", shots=16, seed=0, split="all", dataset="digits", zero=15.0, seconds=2.0, peak=700.0, **metrics
):
    return {
        "system": system, "dataset": dataset, "backbone": "micro-vit", "shots": shots, "seed": seed, "split": split,
        "metrics": metrics, "zero_shot": {"accuracy": zero}, "trainable_parameters": 2048, "seconds": 9 * seconds, "cpu_seconds": seconds,
        "peak_mb": peak,
    }  # fmt: skip


def test_one_line_per_setting_with_the_spread_over_seeds():
    (line,) = table([result(seed=s, seconds=1.0 + s, peak=700 + s, accuracy=60.0 + s, ece=3.0) for s in range(3)])
    assert list(line) == list(COLUMNS)
    assert (line["seeds"], line["metric"], line["mean"], line["sd"]) == (3, "accuracy", 61.0, 1.0)
    assert (line["zero_shot"], line["seconds"], line["peak_mb"]) == (15.0, 2.0, 702)
    assert line["new"] == line["shift_sd"] == "", "what was not measured stays empty"


def test_the_splits_have_their_own_figures():
    lines = table([
        result(split="base", seed=1, accuracy=80.0, base=80.0, new=0.0, harmonic_mean=0.0),
        result(split="shift", seed=1, accuracy=90.0, shift=50.0),
        result(seed=1, accuracy=70.0),
    ])  # fmt: skip
    assert [line["split"] for line in lines] == ["all", "base", "shift"]
    assert [(line["base"], line["new"], line["shift"]) for line in lines] == [("", "", ""), (80, 0, ""), ("", "", 50)]


def test_the_order_is_that_of_the_catalogue_and_the_survey():
    mixed = [
        result("tip_adapter", accuracy=1.0), result("mine", accuracy=1.0), result("coop", shots=4, accuracy=1.0),
        result("coop", shots=1, accuracy=1.0), result("tip_adapter", dataset="objects", accuracy=1.0),
        result("coop", dataset="/pictures", accuracy=1.0),
    ]  # fmt: skip
    assert [(line["dataset"], line["system"], line["shots"]) for line in table(mixed)] == [
        ("objects", "tip_adapter", 16), ("digits", "coop", 1), ("digits", "coop", 4), ("digits", "tip_adapter", 16),
        ("digits", "mine", 16), ("pictures", "coop", 16),
    ]  # fmt: skip


def test_a_folder_is_called_by_its_name_unless_another_has_it_too():
    one, two = result(dataset="/a/pets", accuracy=1.0), result(dataset="/b/birds", accuracy=2.0)
    assert {line["dataset"] for line in table([one, two])} == {"pets", "birds"}
    two["dataset"] = "/b/pets"
    assert {line["dataset"]: line["mean"] for line in table([one, two])} == {"/a/pets": 1.0, "/b/pets": 2.0}


def test_two_settings_of_one_system_are_not_averaged():
    with pytest.raises(VlmlabError, match=r"coop on digits .* seed 0, split all with more than one setting"):
        table([result(accuracy=1.0), result(accuracy=2.0)])


@pytest.mark.parametrize("other", [{"config": {"lr": 0.5}}, {"test_pictures": 100}, {"noise": 0.2}])
def test_seeds_that_were_not_measured_alike_are_not_averaged(other):
    with pytest.raises(VlmlabError, match="seed 1, split all with more than one setting"):
        table([result(accuracy=1.0) | {"config": {"lr": 0.1}}, result(seed=1, accuracy=2.0) | other])


def test_results_with_other_settings_can_be_left_out(tmp_path):
    store = ResultStore(tmp_path)
    store.add(Experiment("coop", "digits"), result(accuracy=1.0))
    store.add(Experiment("coop", "digits", config=(("lr", 0.5),)), result(accuracy=2.0))
    with pytest.raises(VlmlabError, match="--defaults"):
        table(store.results())
    assert [line["mean"] for line in table(store.results(defaults=True))] == [1.0]


def test_results_on_other_test_images_can_be_left_out(tmp_path, capsys):
    store = ResultStore(tmp_path / "store")
    store.add(Experiment("coop", "digits"), result(accuracy=1.0))
    some = result(seed=1, accuracy=2.0) | {"test_pictures": 100}
    store.add(Experiment("coop", "digits", seed=1, test_pictures=100), some)
    asked = ["table", str(store.folder), "--defaults", "--json"]
    assert main(asked) == 2  # their mean would mean nothing
    for pictures, mean in (("100", 2.0), ("0", 1.0)):
        capsys.readouterr()
        assert main([*asked, "--test-pictures", pictures]) == 0
        assert [line["mean"] for line in json.loads(capsys.readouterr().out)] == [mean]
    assert main(["table", "--agreement", "--test-pictures", "100"]) == 2


def test_written_and_read_again(tmp_path):
    lines = table([result(split="base", accuracy=80.0, base=80.0), result("maskclip", shots=0, miou=30.0)])
    found = read_table(write_table(lines, tmp_path / "measured" / "some.csv"))
    assert list(found.columns) == list(COLUMNS) and len(found) == 2
    assert found.set_index("system").loc["coop", "base"] == 80.0 and found["new"].isna().all()
    assert found.set_index("system").loc["maskclip", "metric"] == "miou"


def test_tables_that_are_none(tmp_path):
    with pytest.raises(VlmlabError, match="no result"):
        write_table([], tmp_path / "empty.csv")
    with pytest.raises(VlmlabError, match="vlmlab table STORE"):
        read_table(tmp_path / "missing.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(VlmlabError, match="no column system"):
        read_table(tmp_path / "other.csv")


def test_from_the_command_line(tmp_path, capsys):
    store = ResultStore(tmp_path / "store")
    store.add(Experiment("coop", "digits"), result(accuracy=60.0))
    out = tmp_path / "out.csv"
    assert main(["table", str(store.folder), "--out", str(out)]) == 0
    assert f"{out}: 1 lines" in capsys.readouterr().out and read_table(out)["mean"].tolist() == [60.0]
    assert main(["table", str(store.folder)]) == 0
    assert "coop" in capsys.readouterr().out
    assert main(["table", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_the_summary_compares_systems_on_the_same_datasets(tmp_path):
    rows = [
        result(system=key, dataset=name, accuracy=60.0) for key in ("coop", "kgcoop") for name in ("digits", "aerial")
    ]
    rows += [result(system="coop", dataset="flowers", accuracy=99.0), result(system="upl", shots=0, accuracy=40.0)]
    rows += [result(system="zero_shot", shots=0, accuracy=15.0)]
    lines = as_markdown(read_table(write_table(table(rows), tmp_path / "some.csv"))).splitlines()
    cells = {line.split("|")[1].strip(" `"): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}
    assert cells["system"][:2] == ["no shots, 1 dataset", "16 shots, 2 datasets"]
    assert cells["coop"][:2] == ["", "+45.0"], (
        "what it gains on flowers is not in the mean: the others have not been there"
    )
    assert cells["upl"][:2] == ["+25.0", ""]
    assert "zero_shot" not in cells


def test_the_summary_says_what_becomes_of_new_classes_and_of_other_styles(tmp_path):
    rows = [result(system=key, shots=0, accuracy=15.0) for key in ("zero_shot", "cupl")]
    rows += [result(accuracy=60.0), result(split="base", accuracy=80.0, base=80.0, new=30.0, harmonic_mean=43.6)]
    rows += [result(system="zero_shot", shots=0, split="base", accuracy=40.0, base=40.0, new=50.0, harmonic_mean=44.4)]
    rows += [result(system="taskres", split="base", accuracy=90.0, base=90.0), result(system="taskres", accuracy=70.0)]
    rows += [result(split="shift", dataset="objects", accuracy=90.0, shift=52.5)]
    rows += [result(system="zero_shot", shots=0, split="shift", dataset="objects", accuracy=80.0, shift=50.0)]
    lines = as_markdown(read_table(write_table(table(rows), tmp_path / "some.csv"))).splitlines()
    cells = {line.split("|")[1].strip(" `"): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}
    assert cells["system"][2:4] == ["new classes, 1 dataset", "other styles, 1 dataset"]
    assert cells["coop"][:4] == ["", "+45.0", "-20.0", "+2.5"]
    assert cells["taskres"][2:4] == ["", ""], "what it learned belongs to its classes"
