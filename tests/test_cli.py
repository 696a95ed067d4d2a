import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmlab.cli import main
from vlmlab.datasets import load_dataset
from vlmlab.errors import VlmlabError
from vlmlab.files import cache_path
from vlmlab.studies.run import shared_bank
from vlmlab.studies.store import ResultStore
from vlmlab.studies.sweep import Outcome
from vlmlab.studies.templates import check_names


def vlmlab(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "vlmlab.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def refused(capsys, *arguments: str) -> str:
    """The one line that a mistake is told in; asserts that it is one, with exit code 2 and nothing on standard output."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("vlmlab: ")
    return err


@pytest.fixture
def fake_run(monkeypatch):
    """Experiments are not computed; a library that prints to standard output is imitated."""
    asked = []

    def run(experiment, device="auto", download=False, should_stop=None, checkpoint=None):
        print("Files already downloaded and verified")
        asked.append(experiment)
        if experiment.seed == 13:
            raise VlmlabError("seed 13 brings bad luck; choose another")
        names = {
            name: getattr(experiment, name) for name in ("system", "dataset", "backbone", "shots", "seed", "split")
        }
        return names | {
            "metrics": {"accuracy": 51.25, "ece": float("nan") if experiment.shots == 4 else 3.0},
            "zero_shot": {"accuracy": 40.0},
            "trainable_parameters": 2048,
            "seconds": 1.5,
            "peak_mb": 900.0,
            "config": {"lr": 0.01},
            "stopped": False,
            "versions": {},
        }

    monkeypatch.setattr("vlmlab.studies.run.run_experiment", run)
    return asked


# --- light -------------------------------------------------------------------------------------------------------------


LIGHT = (
    "import sys; from vlmlab.cli import main; code = main(sys.argv[1:]);"
    "heavy = {'torch', 'numpy', 'open_clip', 'timm', 'transformers', 'distributed', 'PIL'} & set(sys.modules);"
    "assert not heavy, heavy; sys.exit(code)"
)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["systems"], ["backbones", "--json"], ["datasets"], ["run", "--help"]]
)
def test_listings_and_help_import_nothing_heavy(arguments):
    done = subprocess.run([sys.executable, "-c", LIGHT, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and done.stderr == ""


WRONG_NAMES = """
run copo --dataset digits
run coop --dataset digts
run coop --dataset digits --backbone micro-vitt
run coop --dataset food --targets digts
sweep --store s --systems copo
sweep --store s --datasets digts
report --systems copo
report --datasets digts
book 99
verify copo
check copo
bench copo
bench fit.copo
build micro-vitt
run coop --dataset digits --set lrr=1
predict vild image.png --words apple --set hed=text
"""


def test_a_wrong_name_is_told_before_anything_heavy_is_imported(tmp_path):
    code = LIGHT.replace(
        "code = main(sys.argv[1:])", "code = [main(line.split()) for line in sys.argv[1:]] != [2] * 16"
    )
    lines = WRONG_NAMES.strip().splitlines()
    done = subprocess.run([sys.executable, "-c", code, *lines], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == "", done.stderr
    told = done.stderr.splitlines()
    assert len(told) == len(lines)
    assert [line for line in told if not re.fullmatch(r"vlmlab: unknown \w+( \w+)? '[^']+'; .*", line)] == []
    assert not list(tmp_path.iterdir())


def test_what_bench_names_is_what_it_measures():
    from vlmlab.cli import checks
    from vlmlab.studies.bench import MEASUREMENTS

    assert checks.MEASUREMENTS == tuple(MEASUREMENTS)


def test_every_command_explains_itself(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    names = (
        "systems",
        "backbones",
        "datasets",
        "run",
        "sweep",
        "table",
        "report",
        "book",
        "grade",
        "verify",
        "check",
        "bench",
        "doctor",
        "build",
    )
    for name in names:
        assert f"\n  {name} " in text
        assert main([name, "--help"]) == 0
        own = capsys.readouterr().out
        assert f"Usage: vlmlab {name}" in own and "--json" in own
    assert "..." not in text.partition("Commands:")[2], "a summary must not be cut"


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("vlmlab 0.")


# --- shapes of the JSON --------------------------------------------------------------------------------------------------


def test_systems_as_json(capsys):
    assert main(["systems", "--json"]) == 0
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows.keys() >= {"zero_shot", "coop", "maple", "tip_adapter", "tip_adapter_f", "tpt", "maskclip"}
    columns = "key name title paper year section family setup tasks learns needs status".split()
    for row in rows.values():
        assert sorted(row) == sorted(columns)
        assert isinstance(row["tasks"], list) and isinstance(row["needs"], list) and isinstance(row["year"], int)
    assert rows["coop"]["name"] == "CoOp" and rows["coop"]["paper"] == "arXiv:2109.01134"


@pytest.mark.parametrize(
    ("command", "columns", "name"),
    [
        ("backbones", "name image_tower text_tower embed_dim image_size megabytes offline", "micro-vit"),
        ("datasets", "name classes splits tasks mirrors offline", "digits"),
    ],
)
def test_lists_as_json(capsys, command, columns, name):
    assert main([command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(sorted(row) == sorted(columns.split()) for row in rows)
    assert next(row for row in rows if row["name"] == name)["offline"] is True


def test_run_prints_one_json_value_whatever_libraries_print(capsys, fake_run):
    assert (
        main(["run", "coop", "--dataset", "digits", "--shots", "4", "--set", "lr=0.5", "--set", "csc=true", "--json"])
        == 0
    )
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["metrics"] == {"accuracy": 51.25, "ece": None}, "JSON knows no NaN"
    assert "already downloaded" in err
    (experiment,) = fake_run
    assert experiment.config == (("csc", True), ("lr", 0.5)) and experiment.shots == 4


def test_run_asks_for_shots_where_they_matter(fake_run):
    for system, *given in (("coop",), ("zero_shot",), ("transclip",), ("zero_shot", "--shots", "4")):
        assert main(["run", system, "--dataset", "digits", *given]) == 0
    assert [e.shots for e in fake_run] == [16, 0, 0, 4]


def test_run_passes_targets_and_wrong_labels_on(fake_run):
    assert main(["run", "coop", "--dataset", "objects", "--targets", "flowers, digits", "--noise", "0.25"]) == 0
    assert main(["run", "coop", "--dataset", "objects", "--targets", "others"]) == 0
    first, second = fake_run
    assert first.targets == ("flowers", "digits") and first.noise == 0.25
    assert {"creatures", "digits"} <= set(second.targets)
    assert not {"objects", "objects-sketch", "tableau", "photographs", "caltech101"} & set(second.targets)


def test_run_says_the_figures_and_zero_shot_s(capsys, fake_run):
    assert main(["run", "coop", "--dataset", "digits"]) == 0
    out = capsys.readouterr().out
    assert "51.2 %   zero-shot   40.0 %" in out and "2,048 numbers learned" in out


@pytest.mark.slow
def test_a_whole_run_in_a_process_of_its_own(tmp_path):
    done = vlmlab(
        *"run tip_adapter --dataset digits --shots 1 --seed 1 --split base --set passes=0 --json".split(),
        VLMLAB_CACHE=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    promised = "system dataset backbone shots seed split metrics zero_shot trainable_parameters seconds peak_mb config versions"
    assert set(promised.split()) <= set(result)
    assert result["backbone"] == "micro-vit" and result["config"]["passes"] == 0
    assert result["metrics"]["base"] == result["metrics"]["accuracy"] > 20, "five digits: chance is 20 %"


# --- sweeps --------------------------------------------------------------------------------------------------------------


def test_a_sweep_of_a_section_has_its_systems_and_their_settings(capsys, tmp_path, fake_run):
    command = [
        "sweep",
        "--section",
        "6.3.2",
        "--datasets",
        "digits",
        "--seeds",
        "1",
        "--split",
        "all,base",
        "--workers",
        "0",
    ]
    command += ["--shots", "1,16"]
    assert main([*command, "--set", "tip_adapter.passes=0", "--store", str(tmp_path)]) == 0
    asked = {(e.system, e.shots, e.split, e.config) for e in fake_run}
    assert ("zero_shot", 0, "all", ()) in asked and ("tip_adapter", 16, "base", (("passes", 0),)) in asked
    assert {shots for system, shots, split, _ in asked if (system, split) == ("clip_adapter", "all")} == {1, 16}
    capsys.readouterr()
    assert "either --section or --systems" in refused(capsys, *command, "--systems", "coop", "--store", str(tmp_path))


def test_a_sweep_with_a_failure_ends_with_1_and_keeps_the_rest(capsys, tmp_path, fake_run):
    command = ["sweep", "--systems", "coop", "--shots", "1,2", "--seeds", "1,13", "--workers", "0"]
    command += ["--store", str(tmp_path), "--json"]
    assert main(command) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row.get("failure") for row in rows] == [None, "seed 13 brings bad luck; choose another"] * 2
    assert main(command) == 1
    assert len(fake_run) == 2 + 4, "what was done must not be done again, what failed must"


def test_a_system_that_takes_no_shots_is_swept_once(tmp_path, fake_run):
    command = ["sweep", "--systems", "coop,upl", "--shots", "1,2", "--seeds", "0", "--workers", "0"]
    assert main([*command, "--store", str(tmp_path)]) == 0
    assert sorted((e.system, e.shots) for e in fake_run) == [("coop", 1), ("coop", 2), ("upl", 0)]


def test_settings_of_one_system_and_of_all(capsys, tmp_path, fake_run):
    command = ["sweep", "--systems", "coop,maple", "--shots", "1", "--seeds", "0", "--workers", "0"]
    settings = ["--set", "epochs=9", "--set", "coop.n_ctx=4", "--set", "coop.epochs=2"]
    assert main([*command, "--store", str(tmp_path), *settings]) == 0
    assert {experiment.system: dict(experiment.config) for experiment in fake_run} == {
        "coop": {"epochs": 2, "n_ctx": 4},
        "maple": {"epochs": 9},
    }
    table = capsys.readouterr().out.split("\n")
    assert table[0].split() == "system dataset backbone shots seed metric percent zero shot seconds".split()
    message = refused(capsys, *command, "--store", str(tmp_path), "--set", "cop.lr=1")
    assert "unknown system of the sweep 'cop'; did you mean coop?" in message


def test_progress_of_a_sweep_is_not_part_of_the_result(capsys, tmp_path, monkeypatch):
    from vlmlab.studies.experiment import Experiment

    def fake(experiments, store, workers, scheduler, on_outcome, download):
        outcomes = [Outcome(experiment, failure="no") for experiment in experiments]
        for outcome in outcomes:
            on_outcome(outcome)
        return outcomes

    monkeypatch.setattr("vlmlab.studies.sweep.sweep", fake)
    assert main(["sweep", "--systems", "coop", "--shots", "1", "--seeds", "0", "--store", str(tmp_path), "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)[0] == Experiment("coop", "digits", shots=1).as_json() | {"failure": "no"}
    assert "[1/1] coop on digits with micro-vit, 1 shot, seed 0, split all: failed: no" in err


def test_a_sweep_says_its_plan_before_it_begins(capsys, tmp_path, fake_run):
    command = ["sweep", "--systems", "coop,zero_shot", "--shots", "1,2", "--workers", "0", "--store", str(tmp_path)]
    assert main([*command, "--seeds", "0"]) == 0
    first, where, *progress = capsys.readouterr().err.splitlines()
    assert (
        first
        == "plan: 3 experiments (2 systems, 1 dataset, 1 backbone, 3 numbers of shots, 1 seed, 1 split); 0 known, 3 to run"
    )
    assert str(tmp_path) in where and "the same command goes on from there" in where
    assert [line[:5] for line in progress if line[0] == "["] == ["[1/3]", "[2/3]", "[3/3]"]
    assert main([*command, "--seeds", "0,1"]) == 0
    assert "; 3 known, 3 to run" in capsys.readouterr().err.splitlines()[0]


def test_a_list_may_be_given_by_an_option_that_is_repeated(tmp_path, fake_run):
    command = (
        "sweep --systems coop --systems vcd,coop --datasets digits --shots 1 --shots 2 --seeds 0 --workers 0".split()
    )
    assert main([*command, "--targets", "food", "--targets", "scenes", "--store", str(tmp_path)]) == 0
    assert {(e.system, e.shots) for e in fake_run} == {("coop", 1), ("coop", 2), ("vcd", 0)}
    assert {e.targets for e in fake_run} == {("food", "scenes")}


# --- verify, bench, build ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("holds", "why", "code", "outcome"),
    [(True, "", 0, "holds"), (False, "", 1, "not reproduced"), (False, "two seeds disagree", 0, "inconclusive")],
)
def test_verify_says_what_holds_and_its_code_too(capsys, monkeypatch, holds, why, code, outcome):
    from vlmlab.studies.verify import Verdict

    def fake(systems, on_start, store):
        on_start("coop", "it learns")
        yield Verdict("coop", "it learns", {"gain": 12.5}, holds, inconclusive=why)

    monkeypatch.setattr("vlmlab.studies.verify.verify", fake)
    assert main(["verify", "coop", "--json"]) == code
    out, err = capsys.readouterr()
    expected = {"system": "coop", "claim": "it learns", "measured": {"gain": 12.5}, "holds": holds, "cause": ""}
    expected |= {"inconclusive": why, "outcome": outcome}
    assert json.loads(out) == [expected] and err == "coop: it learns\n"
    assert main(["verify", "coop"]) == code
    out = capsys.readouterr().out
    assert out.startswith(outcome if holds else outcome.upper()) and why in out


def test_unknown_measurements_and_builds_are_refused(capsys):
    assert "did you mean cached_epoch" in refused(capsys, "bench", "cached_epok")
    assert "unknown embedded backbone 'ViT-B-32/openai'" in refused(capsys, "build", "ViT-B-32/openai")


# --- doctor ----------------------------------------------------------------------------------------------------------------


def test_the_doctor_finds_tampered_weights_and_a_cache_that_cannot_be_written(capsys, tmp_path, monkeypatch):
    weights = tmp_path / "data" / "backbones"
    weights.mkdir(parents=True)
    (weights / "good.safetensors").write_bytes(b"")
    (weights / "bad.safetensors").write_bytes(b"tampered")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    photo = {"weights": "photo.safetensors", "sha256": empty, "sigma": 1, "logit_scale": 1}
    (weights / "photo.json").write_text(json.dumps(photo))
    pinned = {name: empty for name in ("good.safetensors", "bad.safetensors", "gone.safetensors")}
    (weights / "manifest.json").write_text(json.dumps({"micro": {"config": "", "weights": [], "sha256": pinned}}))
    monkeypatch.setenv("VLMLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("VLMLAB_CACHE", str(weights / "good.safetensors" / "cache"))
    assert main(["doctor", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert all(set(finding) == {"value", "ok", "note"} for finding in findings.values())
    wrong = {name for name, finding in findings.items() if not finding["ok"]}
    assert wrong == {"bad.safetensors", "gone.safetensors", "photo.safetensors", "cache folder"}
    assert "model hub" not in findings, "the network is only tried when asked for"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"micro-vit": 3}', '{"micro-vit": {"weights": []}}'])
def test_damaged_data_is_told_in_one_line(capsys, tmp_path, monkeypatch, content):
    weights = tmp_path / "backbones"
    weights.mkdir()
    if content:
        for file in ("manifest.json", "photo.json"):
            (weights / file).write_text(content)
    monkeypatch.setenv("VLMLAB_DATA", str(tmp_path))
    shared_bank.cache_clear()  # a backbone that an earlier test left in memory would not be read
    for backbone, file in (("micro-vit", "manifest.json" if content else "backbones"), ("photo", "json")):
        told = refused(capsys, "run", "zero_shot", "--dataset", "digits", "--backbone", backbone)
        assert file in told and "get the repository's data/ again, or name a copy with VLMLAB_DATA" in told
    assert main(["doctor", "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["embedded weights"]["ok"]


# --- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rum"], "No such command 'rum'"),
        (["run", "coop"], "Missing option '--dataset'"),
        (["run", "coop", "--dataset", ""], "unknown dataset ''"),
        (["run", "coop", "--dataset", "digits", "--shots", "many"], "--shots"),
        (["run", "coop", "--dataset", "digits", "--shotz", "4"], "No such option"),
        (["run", "coop", "--dataset", "digits", "--split", "novel"], "unknown split 'novel'"),
        (["run", "coop", "--dataset", "digits", "--shots", "-1"], "shots must be"),
        (["run", "coop", "--dataset", "digits", "--noise", "2"], "noise is a share"),
        (["report", "--set", "workers=two"], "'workers' must be a whole number"),
        (["report", "--set", "worker=2"], "did you mean workers"),
        (["run", "coop", "--dataset", "digits", "--set", "lr"], "a setting is written KEY=VALUE"),
        (["run", "cop", "--dataset", "digits"], "unknown system 'cop'; did you mean coop"),
        (["run", "coop", "--dataset", "digits", "--backbone", "micro-vitt"], "did you mean micro-vit"),
        (["run", "coop", "--dataset", "digts"], "unknown dataset 'digts'; did you mean digits"),
        (["run", "coop", "--dataset", "no/such/folder"], "no/such/folder"),
        (["run", "coop", "--dataset", "digits", "--set", "n_ctxx=4"], "did you mean n_ctx"),
        (["run", "coop", "--dataset", "digits", "--set", "n_ctx=four"], "not 'four'"),
        (["run", "coop", "--dataset", "digits", "--device", "gpu9"], "the device 'gpu9' cannot be used"),
        (["run", "coop", "--dataset", "digits", "--shots", "100"], "only"),
        (["verify", "cop"], "unknown system 'cop'"),
        (["report", "--shots", "1,two"], "--shots takes whole numbers"),
        (["report", "--template", "adaptatio"], "did you mean adaptation"),
        (["sweep", "--store", "s", "--systems", "coop,mapel"], "did you mean maple"),
        (["sweep", "--store", "s", "--seeds", "a"], "--seeds takes whole numbers"),
        (["sweep", "--store", "s", "--datasets", "digits,digts"], "unknown dataset 'digts'; did you mean digits"),
        (["sweep", "--store", "s", "--targets", "food,fod"], "unknown dataset 'fod'; did you mean food"),
        (["sweep", "--store", "s", "--datasets", "./nowhere"], "there is no folder ./nowhere"),
        (["sweep", "--store", "s", "--backbones", "micro-vitt"], "did you mean micro-vit"),
        (["sweep", "--store", "s", "--systems", "all"], "unknown system 'all'"),
        (["sweep", "--store", "s", "--set", "coop.n_ctxx=4"], "coop: unknown setting 'n_ctxx'; did you mean n_ctx"),
        (["sweep", "--store", "s", "--set", "coop.n_ctx=four"], "not 'four'"),
        (["report", "--shots", "0"], "'shots' must be 1 or more"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == [], "nothing may be half written"


def picture_folder(folder, classes):
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.full((20, 20, 3), 20 * i, np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return str(folder)


def test_mistakes_with_a_folder_of_pictures_are_told(capsys, tmp_path):
    empty, single, few = tmp_path / "empty", tmp_path / "single", tmp_path / "few"
    empty.mkdir()
    picture_folder(single, {"cat": 8})
    picture_folder(few, {"cat": 8, "dog": 8})
    (few / "dog" / "0.png").write_bytes((few / "dog" / "0.png").read_bytes()[:50])
    assert "empty" in refused(capsys, "run", "tip_adapter", "--dataset", str(empty))
    assert "no result in" in refused(capsys, "table", str(empty))
    assert "single" in refused(capsys, "run", "tip_adapter", "--dataset", str(single))
    broken = refused(capsys, "run", "tip_adapter", "--dataset", str(few), "--shots", "1")
    assert str(few / "dog" / "0.png") in broken


def test_a_store_that_cannot_be_written_is_told_before_work(capsys, tmp_path, fake_run):
    (tmp_path / "file").write_text("")
    message = refused(capsys, "sweep", "--store", str(tmp_path / "file" / "store"), "--workers", "0")
    assert "cannot write" in message and not fake_run


def test_a_run_says_what_has_changed_since_the_last_one(capsys, tmp_path, monkeypatch, fake_run):
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path / "cache"))
    folder = picture_folder(tmp_path / "few", {"cat": 2, "dog": 2})
    said = []
    for _ in range(2):
        assert main(["run", "zero_shot", "--dataset", folder]) == 0
        said.append(capsys.readouterr().err)
    picture_folder(tmp_path / "few", {"bird": 2})
    for _ in range(2):
        assert main(["run", "zero_shot", "--dataset", folder]) == 0
        said.append(capsys.readouterr().err)
    line = f"vlmlab: since this was measured last, {folder} has changed: class folders 2 -> 3, images 4 -> 6\n"
    assert [line in one for one in said] == [False, False, True, False] and len(fake_run) == 4


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", [["systems"], ["systems", "--json"], ["--version"]])
def test_an_answer_that_finds_no_room_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "vlmlab.cli", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "No space left" in done.stderr


def test_whoever_reads_only_the_beginning_is_not_told_of_it():
    command = f"{sys.executable} -m vlmlab.cli systems | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


def test_help_and_systems_answer_within_two_seconds():
    # CPU seconds of the child, so that a busy machine does not decide the outcome.
    for arguments in (["--help"], ["systems"]):
        before = os.times().children_user + os.times().children_system
        began = time.perf_counter()
        assert vlmlab(*arguments).returncode == 0
        used = os.times().children_user + os.times().children_system - before
        assert min(used, time.perf_counter() - began) < 2


def test_what_the_terminal_cannot_spell_does_not_lose_the_answer():
    """A real process whose standard output knows Latin-1 only."""
    code = "from vlmlab.cli import main; main(['systems']); print('\u732b')"
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, encoding="latin-1")
    assert done.returncode == 0 and done.stdout.endswith("\\u732b\n")


@pytest.mark.parametrize(
    "work, arguments",
    [
        ("vlmlab.studies.verify.verify", ["verify", "coop"]),
        ("vlmlab.studies.run.run_experiment", ["run", "coop", "--dataset", "digits"]),
        ("vlmlab.studies.sweep.sweep", ["sweep", "--store", "STORE"]),
        ("vlmlab.studies.report.report", ["report", "--out", "STORE"]),
        ("vlmlab.studies.bench.bench", ["bench", "world"]),
        ("vlmlab.studies.doctor.examine", ["doctor"]),
        ("vlmlab.book.execute.book", ["book", "06_2"]),
        ("vlmlab.cli.entry.main", ["systems"]),  # before it can catch anything itself
    ],
)
def test_ctrl_c_is_told_in_one_line(work, arguments, capsys, monkeypatch, tmp_path):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(work, interrupted)
    assert main([str(tmp_path / "s") if one == "STORE" else one for one in arguments]) == 130
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1] == "vlmlab: stopped"
    assert "Traceback" not in err


# -- names and paths as people type them


def test_a_comma_in_a_path_is_part_of_it(tmp_path, monkeypatch):
    from vlmlab.cli.options import names_in

    monkeypatch.chdir(tmp_path)
    (tmp_path / "Smith, J").mkdir()
    (tmp_path / "w,1.pt").write_text("")
    assert names_in(["./Smith, J"]) == ["./Smith, J"]
    assert names_in(['digits, "./Smith, J"', "food"]) == ["digits", "./Smith, J", "food"]
    assert names_in(["ViT-B-32@w,1.pt"]) == ["ViT-B-32@w,1.pt"]
    assert names_in(["./Jones, K"]) == ["./Jones", "K"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["table", ""], ["grade", ""], ["grade", "here", ""], ["sweep", "--store", " "], ["report", "--out", ""],
        ["run", "coop", "--dataset", "digits", "--root", ""], ["run", "coop", "--dataset", ""],
    ],
)  # fmt: skip
def test_an_empty_path_is_refused(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("vlmlab: ") and err.count("\n") == 1 and not list(tmp_path.iterdir())


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["table", LONG], ["grade", LONG], ["sweep", "--store", LONG, "--systems", "zero_shot", "--seeds", "0"],
        ["run", "zero_shot", "--dataset", f"./{LONG}"], ["run", "zero_shot", "--dataset", LONG],
        ["run", "zero_shot", "--dataset", "digits", "--backbone", f"ViT-B-32@{LONG}"],
        ["run", "zero_shot", "--dataset", "eurosat", "--root", LONG], ["report", "--datasets", f"./{LONG}"],
        ["run", "zero_shot", "--dataset", "~nobody-of-this-name/x"],
    ],
)  # fmt: skip
def test_names_that_no_file_can_have_are_one_line(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("vlmlab: ") and err.count("\n") == 1


def test_the_home_folder_is_meant_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VLMLAB_CACHE", "~/x")
    assert cache_path("y") == tmp_path / "home" / "x" / "y"
    assert ResultStore("~/store").folder == tmp_path / "home" / "store"
    monkeypatch.delenv("VLMLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/z")
    assert cache_path() == tmp_path / "home" / "z" / "vlmlab"


def test_a_user_without_a_home_has_a_cache_among_the_temporary_files(monkeypatch):
    for name in ("HOME", "VLMLAB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # what it does for a user who is in no list
    assert cache_path().parent == Path(tempfile.gettempdir()) and cache_path().name.startswith("vlmlab-")


def test_a_folder_named_like_a_dataset_is_mentioned(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match=r"digits is vlmlab's dataset .* is named \./digits"):
        load_dataset("digits")
    with pytest.warns(UserWarning, match=r"digits is vlmlab's dataset"):
        check_names({"datasets": ["digits"]})


def test_systems_fit_the_terminal_and_are_filtered(capsys):
    assert main(["systems"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100 and len(lines) > 40
    assert main(["systems", "--setup", "training-free", "cache"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["tip_adapter"]
    assert main(["systems", "--family", "adaptr"]) == 2
    assert "did you mean adapter?" in capsys.readouterr().err
    assert main(["systems", "no-such-word"]) == 2
