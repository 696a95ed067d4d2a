import dataclasses
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from vlmlab.datasets.catalog import is_path
from vlmlab.errors import VlmlabError
from vlmlab.studies.experiment import Experiment, grid
from vlmlab.studies.store import ResultStore
from vlmlab.studies.sweep import sweep

COOP = Experiment("coop", "digits", config=(("lr", 0.1), ("epochs", 3)))


def test_the_key_stands_for_the_content_and_nothing_else(tmp_path):
    assert COOP.key == Experiment("coop", "digits", config={"epochs": 3, "lr": 0.1}.items()).key
    others = [
        {"system": "maple"},
        {"dataset": "flowers"},
        {"backbone": "micro-rn"},
        {"shots": 8},
        {"seed": 1},
        {"split": "base"},
        {"config": (("lr", 0.2), ("epochs", 3))},
        {"views": 4},
        {"root": str(tmp_path)},
        {"skip_broken": True},
        {"targets": ("flowers",)},
        {"noise": 0.5},
        {"test_pictures": 9},
        {"validation": True},
    ]
    assert {next(iter(other)) for other in others} == {field.name for field in dataclasses.fields(Experiment)}
    keys = {dataclasses.replace(COOP, **other).key for other in others} | {COOP.key}
    assert len(keys) == len(others) + 1


def test_the_key_is_the_same_in_every_process_and_survives_json():
    assert Experiment(**json.loads(json.dumps(COOP.as_json()))) == COOP
    assert COOP.key == "27387630ef548ff8"


@pytest.mark.parametrize("value", [0.01, "0.01", "1e-2", "0.010", " 0.01", 1e-2])
@pytest.mark.parametrize("dataset", ["objects-v2", "Objects_V2", "OBJECTS-v2"])
def test_an_experiment_has_one_name_however_it_is_spelled(dataset, value):
    one = Experiment("coop", "objects-v2", config={"lr": 0.01, "csc": True, "epochs": 5})
    same = Experiment("coop", dataset, config={"epochs": "5", "csc": "yes", "lr": value}, targets=["Digits"])
    assert dataclasses.replace(same, targets=()).key == one.key and same.targets == ("digits",)
    assert one.key not in one.older_keys
    assert [type(value) for _, value in same.config] == [bool, int, float]


def test_a_setting_that_cannot_be_read_is_left_for_who_runs_it():
    assert Experiment("coop", "digits", config={"lr": "much", "lrr": "1"}).config == (("lr", "much"), ("lrr", "1"))
    assert Experiment("nobody", "digits", config={"lr": "1"}).config == (("lr", "1"),)


def test_a_checkpoint_is_one_backbone_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Experiment("coop", "digits", "ViT-B-32@own.pt").backbone == f"ViT-B-32@{tmp_path.resolve() / 'own.pt'}"


@pytest.mark.parametrize(
    ("key", "asked"),
    [  # keys that vlmlab gave when it took names and values as they were spelled
        ("6c5ec6c71f7ab505", {"dataset": "Objects_V2", "config": {"lr": "0.01"}}),
        ("b1913231edac202f", {"dataset": "objects-v2", "config": {"lr": "0.01"}}),
        ("1d82fcc64acad489", {"dataset": "Objects_V2", "config": {"lr": 0.01}}),
        ("8e3e4a04c8125fe1", {"dataset": "objects-v2", "config": {"lr": 0.01}}),
        ("3fcccc61a497b5be", {"dataset": "objects-v2", "config": {"lr": "1e-2"}}),
    ],
)
def test_old_stores_are_still_found(tmp_path, key, asked):
    """By whoever asks in the words of then; results of the command line's usual spelling by whoever asks at all."""
    content = {"experiment": {"system": "coop", **asked}, "result": {"a": 1}}
    (tmp_path / f"{key}.json").write_text(json.dumps(content))
    store = ResultStore(tmp_path)
    assert store.get(Experiment("coop", **asked)) == {"a": 1}
    if key == "b1913231edac202f":
        assert store.get(Experiment("coop", "OBJECTS-V2", config={"lr": 1e-2})) == {"a": 1}
    store.add(Experiment("coop", **asked), {"a": 2})
    assert store.results() == [{"a": 2}]


def test_one_function_says_what_a_path_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "pets", "Objects_V2"):
        (tmp_path / name).mkdir()
    assert [name for name in ("digits", "Objects_V2", "pets", "nothing", "./digits", "~/x", "") if is_path(name)] == [
        "pets", "./digits", "~/x"
    ]  # fmt: skip


def test_a_folder_is_one_dataset_wherever_one_stands(tmp_path, monkeypatch):
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Experiment("coop", "./pets") == Experiment("coop", str(tmp_path / "pets")) == Experiment("coop", "pets")
    assert Experiment("coop", "digits").dataset == "digits"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split": "novel"}, "unknown split 'novel'"),
        ({"shots": -1}, "shots must be a whole number"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"noise": 1.5}, "noise is a share of the labels"),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong, message):
    with pytest.raises(VlmlabError, match=message):
        dataclasses.replace(COOP, **wrong)


def test_a_grid_has_every_combination_once():
    experiments = grid(["a", "b"], ["d", "e"], shots=[1, 2, 4], seeds=[0, 1], split="base")
    assert len({experiment.key for experiment in experiments}) == len(experiments) == 24
    assert all(experiment.split == "base" for experiment in experiments)
    assert [experiment.dataset for experiment in experiments] == ["d"] * 12 + ["e"] * 12


@pytest.fixture
def pets(tmp_path) -> Experiment:
    folder = tmp_path / "pets"
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "1.png").write_bytes(b"one")
    (folder / "labels.csv").write_text("file,label\n")
    return Experiment("coop", str(folder))


@pytest.mark.parametrize("change", ["added", "removed", "other size", "same size", "table"])
def test_a_result_on_a_folder_is_known_until_the_folder_changes(tmp_path, pets, change):
    folder = Path(pets.dataset)
    ResultStore(folder / "results").add(pets, {"a": 1})  # within the folder itself
    os.utime(folder / "cat" / "1.png", (0, 0))  # a copy has other times
    assert ResultStore(folder / "results").get(pets) == {"a": 1}
    if change == "added":
        (folder / "cat" / "2.png").write_bytes(b"two")
    elif change == "removed":
        (folder / "cat" / "1.png").unlink()
    elif change == "other size":
        (folder / "cat" / "1.png").write_bytes(b"another")
    elif change == "same size":
        (folder / "cat" / "1.png").write_bytes(b"two")
    else:
        (folder / "labels.csv").write_text("file,label\ncat/1.png,cat\n")
    store = ResultStore(folder / "results")
    assert store.get(pets) is None and pets not in store
    store.add(pets, {"a": 2})
    assert store.get(pets) == {"a": 2} and len(store) == 1


@pytest.mark.parametrize("named", ["descriptions", "backbone"])
def test_a_result_made_from_a_file_is_known_until_the_file_changes(tmp_path, named):
    file = tmp_path / "made.json"
    file.write_text("one")
    fields = {"backbone": f"ViT-B-32@{file}"} if named == "backbone" else {"config": {"descriptions": str(file)}}
    experiment = dataclasses.replace(COOP, **fields)
    ResultStore(tmp_path / "store").add(experiment, {"a": 1})
    os.utime(file, (0, 0))  # a copy has other times
    assert ResultStore(tmp_path / "store").get(experiment) == {"a": 1}
    file.write_text("two")
    assert ResultStore(tmp_path / "store").get(experiment) is None
    file.unlink()
    assert ResultStore(tmp_path / "store").get(experiment) == {"a": 1}


def test_results_on_a_folder_outlive_it(tmp_path, pets):
    ResultStore(tmp_path / "store").add(pets, {"a": 1})
    shutil.rmtree(pets.dataset)
    assert ResultStore(tmp_path / "store").get(pets) == {"a": 1}


def test_a_result_comes_back_and_takes_the_place_of_a_failure(tmp_path):
    store = ResultStore(tmp_path / "new" / "folder")
    assert COOP not in store and store.get(COOP) is None and len(store) == 0
    store.add_failure(COOP, "no luck")
    assert store.failure(COOP) == "no luck" and COOP not in store and store.results() == []
    store.add(COOP, {"metrics": {"accuracy": 50.0}})
    assert store.get(COOP) == {"metrics": {"accuracy": 50.0}} and store.failure(COOP) is None
    assert store.results() == [{"metrics": {"accuracy": 50.0}}]
    assert [path.name for path in store.folder.iterdir()] == [f"{COOP.key}.json"]


def test_a_late_failure_never_hides_a_result(tmp_path):
    store = ResultStore(tmp_path)
    store.add(COOP, {"a": 1})
    store.add_failure(COOP, "another machine had no memory")
    assert store.get(COOP) == {"a": 1} and store.failure(COOP) is None


def test_a_folder_that_cannot_be_written_is_told_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("vlmlab.studies.run.run_experiment", lambda *_, **__: pytest.fail("work was begun"))
    (tmp_path / "file").write_text("")
    store = ResultStore(tmp_path / "file" / "results")
    with pytest.raises(VlmlabError, match="cannot write"):
        store.prepare()
    with pytest.raises(VlmlabError, match="cannot write"):
        sweep([COOP], store, workers=0)


def test_results_are_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    ResultStore(tmp_path).add(COOP, {"a": 1})

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    for writer in ("tempfile.mkstemp", "tempfile.TemporaryFile", "pathlib.Path.mkdir"):
        monkeypatch.setattr(writer, refuse)
    assert ResultStore(tmp_path).results() == [{"a": 1}]
    (outcome,) = sweep([COOP], ResultStore(tmp_path), workers=0)
    assert outcome.known


def test_a_file_that_is_no_result_is_named(tmp_path):
    store = ResultStore(tmp_path)
    (tmp_path / f"{COOP.key}.json").write_text("{")
    with pytest.raises(VlmlabError, match=COOP.key):
        store.get(COOP)


def _write(folder: str, seed: int) -> None:
    store = ResultStore(folder)
    for repeat in range(30):
        store.add(dataclasses.replace(COOP, seed=repeat % 3), {"by": "x" * 5000, "seed": repeat % 3})


def test_writers_in_one_folder_lose_nothing(tmp_path):
    processes = [multiprocessing.get_context("fork").Process(target=_write, args=(str(tmp_path), i)) for i in range(4)]
    for process in processes:
        process.start()
    store = ResultStore(tmp_path)
    while any(process.is_alive() for process in processes):
        for result in store.results():  # a reader in between sees whole files only
            assert len(result["by"]) == 5000
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(result["seed"] for result in store.results()) == [0, 1, 2]
    assert len(os.listdir(tmp_path)) == 3, "no temporary file may stay behind"


def test_a_checkpoint_has_its_place_and_leaves_none(tmp_path):
    store = ResultStore(tmp_path)
    path = store.checkpoint(COOP)
    path.parent.mkdir()
    path.write_bytes(b"half way")
    store.forget_checkpoint(COOP)
    store.forget_checkpoint(COOP)
    assert list(Path(tmp_path).iterdir()) == []


def test_a_table_with_other_labels_of_the_same_length_is_another_folder(tmp_path, pets):
    ResultStore(tmp_path / "store").add(pets, {"a": 1})
    table = Path(pets.dataset) / "labels.csv"
    table.write_text(table.read_text().replace("file", "elif"))
    assert ResultStore(tmp_path / "store").get(pets) is None


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"result"'])
def test_json_that_is_no_result_is_told_with_its_name(tmp_path, content):
    store = ResultStore(tmp_path)
    (tmp_path / f"{COOP.key}.json").write_text(content)
    for ask in (lambda: store.get(COOP), store.results):
        with pytest.raises(VlmlabError, match=f"{COOP.key}.json is not a result"):
            ask()


def test_a_dataset_of_vlmlab_is_not_hidden_by_a_folder_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "food").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Experiment("coop", "food").dataset == "food"
    assert Experiment("coop", "./food").dataset == str(tmp_path / "food")
    assert Experiment("coop", "mine").dataset == str(tmp_path / "mine")


def test_a_seed_that_no_generator_takes_is_refused():
    with pytest.raises(VlmlabError, match="seed must be below"):
        Experiment("coop", "digits", seed=2**40)


# -- what a result was made from lies elsewhere


def replaced(file: Path, content: bytes) -> None:
    """Other bytes of the same size."""
    assert len(content) == file.stat().st_size and content != file.read_bytes()
    file.write_bytes(content)


def test_a_change_behind_a_link_is_noticed(tmp_path, pets):
    folder = Path(pets.dataset)
    (tmp_path / "real" / "dog").mkdir(parents=True)
    (tmp_path / "real" / "dog" / "1.png").write_bytes(b"one")
    (folder / "dog").symlink_to(tmp_path / "real" / "dog")
    ResultStore(tmp_path / "store").add(pets, {"a": 1})
    assert ResultStore(tmp_path / "store").get(pets) == {"a": 1}
    (tmp_path / "real" / "dog" / "2.png").write_bytes(b"two")
    assert ResultStore(tmp_path / "store").get(pets) is None


@pytest.mark.parametrize("written", ["../elsewhere/1.png", "..\\elsewhere\\1.png", "{absolute}"])
def test_a_change_of_what_a_table_names_outside_is_noticed(tmp_path, pets, written):
    outside = tmp_path / "elsewhere" / "1.png"
    outside.parent.mkdir()
    outside.write_bytes(b"one")
    text = f"file,label\n{written.format(absolute=outside)},cat\n"
    (Path(pets.dataset) / "labels.csv").write_text(text)
    ResultStore(tmp_path / "store").add(pets, {"a": 1})
    assert ResultStore(tmp_path / "store").get(pets) == {"a": 1}
    replaced(outside, b"two")
    assert ResultStore(tmp_path / "store").get(pets) is None


@pytest.mark.parametrize("changed", ["eurosat/split_zhou_EuroSAT.json", "eurosat/2750/Forest/1.jpg"])
def test_a_standard_dataset_belongs_to_its_files_too(tmp_path, changed):
    for name in ("eurosat/split_zhou_EuroSAT.json", "eurosat/2750/Forest/1.jpg", "dtd/images/1.jpg"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_bytes(b"one")
    experiment = Experiment("coop", "eurosat", root=str(tmp_path / "root"))
    ResultStore(tmp_path / "store").add(experiment, {"a": 1})
    replaced(tmp_path / "root" / "dtd/images/1.jpg", b"two")  # another dataset
    assert ResultStore(tmp_path / "store").get(experiment) == {"a": 1}
    replaced(tmp_path / "root" / changed, b"two")
    assert ResultStore(tmp_path / "store").get(experiment) is None
    shutil.rmtree(tmp_path / "root")
    assert ResultStore(tmp_path / "store").get(experiment) == {"a": 1}


def test_the_places_of_the_standard_datasets_are_those_that_are_read():
    from vlmlab.datasets.scenes import SCENES
    from vlmlab.datasets.segmented import SEGMENTED
    from vlmlab.datasets.sources import PLACES
    from vlmlab.datasets.standard import AIRCRAFT_OF_COOP, STANDARD

    assert set(PLACES) == {*STANDARD, *SCENES, *SEGMENTED}
    for name, how in STANDARD.items():
        assert how.layout.partition("/")[0] in PLACES[name]
        assert how.coop is None or how.coop[0] in PLACES[name]
    assert AIRCRAFT_OF_COOP in PLACES["fgvc-aircraft"]


def test_what_changes_while_an_experiment_runs_was_not_measured(tmp_path, pets):
    store = ResultStore(tmp_path / "store")
    store.look(pets)
    replaced(Path(pets.dataset) / "cat" / "1.png", b"two")
    store.add(pets, {"a": 1})
    assert ResultStore(tmp_path / "store").get(pets) is None


def test_a_result_of_an_older_vlmlab_is_known_by_names_and_sizes(tmp_path, pets):
    store = ResultStore(tmp_path / "store")
    store.add(pets, {"a": 1})
    file = store.folder / f"{pets.key}.json"
    old = "8d41f3a9fd720718"  # what 0.1 wrote for this folder
    content = json.loads(file.read_text())
    content["made_from"] = {pets.dataset: old}
    file.write_text(json.dumps(content))
    assert ResultStore(tmp_path / "store").get(pets) == {"a": 1}
    (Path(pets.dataset) / "cat" / "1.png").write_bytes(b"another")
    assert ResultStore(tmp_path / "store").get(pets) is None


def test_a_folder_whose_name_is_no_utf_8_has_results(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9t\xe9"))
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "1.png").write_bytes(b"one")
    experiment = Experiment("coop", str(folder))
    ResultStore(tmp_path / "store").add(experiment, {"dataset": str(folder)})
    assert ResultStore(tmp_path / "store").get(experiment) == {"dataset": str(folder)}
    (folder / "cat" / "1.png").write_bytes(b"two")
    assert ResultStore(tmp_path / "store").get(experiment) is None


def told(store: Path, experiment: Experiment) -> str | None:
    return ResultStore(store).changes(experiment)


def test_what_changed_is_told_in_one_line(tmp_path, pets):
    folder, store = Path(pets.dataset), tmp_path / "store"
    assert told(store, pets) is None, "no result"
    ResultStore(store).add(pets, {"a": 1})
    assert told(store, pets) is None
    replaced(folder / "cat" / "1.png", b"two")
    assert told(store, pets) == f"{folder} has changed: images changed"
    (folder / "dog").mkdir()
    for name in ("2.png", "3.png"):
        (folder / "dog" / name).write_bytes(b"three")
    assert told(store, pets) == f"{folder} has changed: class folders 1 -> 2, images 1 -> 3"
    (folder / "labels.csv").write_text("file,label\ncat/1.png,cat\n")
    (folder / "split.txt").write_text("1")
    assert told(store, pets).endswith("class folders 1 -> 2, images 1 -> 3, labels.csv changed, split.txt added")
    ResultStore(store).add(pets, {"a": 2})
    (folder / "split.txt").unlink()
    assert told(store, pets) == f"{folder} has changed: split.txt removed"


def test_what_changed_of_a_standard_dataset_is_told(tmp_path):
    root, store = tmp_path / "root", tmp_path / "store"
    split, image = root / "eurosat/split_zhou_EuroSAT.json", root / "eurosat/2750/Forest/1.jpg"
    image.parent.mkdir(parents=True)
    split.write_bytes(b"one")
    image.write_bytes(b"one")
    experiment = Experiment("coop", "eurosat", root=str(root))
    ResultStore(store).add(experiment, {"a": 1})
    replaced(split, b"two")
    assert told(store, experiment) == f"eurosat in {root} has changed: eurosat/split_zhou_EuroSAT.json changed"
    many = root / "eurosat" / "boxes"
    many.mkdir()
    for i in range(20):
        (many / f"{i}.xml").write_bytes(b"one")
    assert told(store, experiment) == f"eurosat in {root} has changed: lists 1 -> 21"


def test_a_changed_checkpoint_and_changed_descriptions_are_told(tmp_path):
    weights, words = tmp_path / "w.pt", tmp_path / "words.json"
    weights.write_text("one")
    words.write_text("one")
    experiment = dataclasses.replace(COOP, backbone=f"ViT-B-32@{weights}", config={"descriptions": str(words)})
    ResultStore(tmp_path / "store").add(experiment, {"a": 1})
    weights.write_text("two")
    assert told(tmp_path / "store", experiment) == f"the checkpoint {weights} has changed"
    words.write_text("two")
    said = told(tmp_path / "store", experiment)
    assert f"the file {words} (setting descriptions) has changed" in said and "; " in said and "\n" not in said


def test_an_older_result_says_only_that_files_changed(tmp_path, pets):
    store = ResultStore(tmp_path / "store")
    store.add(pets, {"a": 1})
    file = store.folder / f"{pets.key}.json"
    content = json.loads(file.read_text())
    content["made_from"] = {pets.dataset: content["made_from"][pets.dataset]}  # without parts
    file.write_text(json.dumps(content))
    assert ResultStore(tmp_path / "store").get(pets) == {"a": 1}
    replaced(Path(pets.dataset) / "cat" / "1.png", b"two")
    assert told(tmp_path / "store", pets) == f"{pets.dataset} has changed: files changed"
