import subprocess
import sys
from types import SimpleNamespace

import pytest

from vlmlab.errors import VlmlabError
from vlmlab.registry import registry
from vlmlab.studies import verify as checks
from vlmlab.studies.verify import Verdict, claims, judged, record, verify


def test_every_system_of_the_first_chapters_has_a_claim_in_the_survey_s_order():
    written = claims()
    assert written.keys() >= {"zero_shot", "coop", "maple", "tip_adapter", "tip_adapter_f", "tpt", "maskclip"}
    assert list(written) == [key for key in registry() if key in written]
    assert all(len(claim) > 20 for claim in written.values())


def test_listing_the_claims_measures_nothing():
    code = "import sys; from vlmlab.studies.verify import claims; claims(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture
def imitated(monkeypatch):
    """Checks that do not measure; CoOp's claim fails."""
    asked = []

    def imported(name):
        key = name.rpartition(".")[2]

        def measure():
            asked.append(key)
            return Verdict(key, claims()[key], {"gain": 1.0}, key != "coop")

        return SimpleNamespace(measure=measure, cause="a small world")

    monkeypatch.setattr(checks.importlib, "import_module", imported)
    return asked


def test_named_checks_run_in_the_order_of_their_names(imitated):
    told = []
    verdicts = list(verify(["tpt", "coop"], on_start=lambda key, claim: told.append(key)))
    assert imitated == told == ["tpt", "coop"]
    assert [(verdict.holds, verdict.cause) for verdict in verdicts] == [(True, ""), (False, "a small world")]
    assert verdicts[0].row() == {
        "system": "tpt",
        "claim": claims()["tpt"],
        "measured": {"gain": 1.0},
        "holds": True,
        "cause": "",
        "inconclusive": "",
        "outcome": "holds",
    }


@pytest.mark.parametrize(
    ("differences", "ceilings", "outcome", "why"),
    [
        ([3.0, 4.0, 5.0], {}, "holds", ""),
        ([-3.0, -4.0, -5.0], {}, "not reproduced", ""),
        ([-3.0, 4.0, 5.0], {}, "inconclusive", "lies within the deviation of 4.36 over 3 seeds"),
        ([0.0, 0.0], {}, "inconclusive", "the difference of 0.00 points"),
        ([-3.0, -4.0], {"recall_new": 12.0, "teacher_new": 90.0}, "inconclusive", "recall_new is 12.0 %, less"),
        ([3.0, 4.0], {"recall_new": 12.0}, "holds", ""),
    ],
)
def test_one_rule_says_what_cannot_be_told(differences, ceilings, outcome, why):
    verdict = judged("coop", "a claim", {"own": 1.0}, differences, ceilings)
    assert verdict.outcome == outcome and why in verdict.inconclusive and bool(why) == bool(verdict.inconclusive)
    assert verdict.measured["own"] == 1.0 and verdict.holds == (outcome == "holds")


@pytest.mark.parametrize(
    ("differences", "besides", "outcome"),
    [
        ({"new": [3.0, 4.0], "base": [1.0, 1.2]}, True, "holds"),
        ({"new": [3.0, 4.0], "base": [1.0, 1.2]}, False, "not reproduced"),
        ({"new": [3.0, 4.0], "base": [-1.0, 2.0]}, True, "inconclusive"),
        ({"new": [-3.0, -4.0], "base": [-1.0, 2.0]}, True, "not reproduced"),
    ],
)
def test_of_several_differences_each_must_hold(differences, besides, outcome):
    verdict = judged("coop", "a claim", {}, differences, besides=besides)
    assert verdict.outcome == outcome
    assert {"difference_new", "difference_base_sd"} <= verdict.measured.keys()
    assert verdict.inconclusive == (
        "the difference of base, 0.50 points lies within the deviation of 2.12 over 2 seeds"
        if outcome == "inconclusive"
        else ""
    )


def test_experiments_of_checks_are_kept_in_a_store_and_not_run_again(tmp_path, monkeypatch):
    from vlmlab.studies.store import ResultStore
    from vlmlab.studies.verify import _measure

    run = []
    monkeypatch.setattr(
        _measure, "run_experiment", lambda experiment: run.append(experiment.seed) or {"metrics": {"accuracy": 50.0}}
    )

    def measure():
        rows = _measure.results("zero_shot", "digits", 0, seeds=(1, 2))
        return Verdict("coop", "a claim", {"accuracy": rows[1]["metrics"]["accuracy"]}, True)

    monkeypatch.setattr(checks.importlib, "import_module", lambda name: SimpleNamespace(measure=measure))
    for _ in range(2):
        _measure._result.cache_clear()  # as another process has it
        (verdict,) = verify(["coop"], store=ResultStore(tmp_path))
        assert verdict.measured == {"accuracy": 50.0} and checks.store_of_checks.get() is None
    assert run == [1, 2] and len(ResultStore(tmp_path)) == 2
    _measure._result.cache_clear()


def test_one_seed_is_no_verdict():
    with pytest.raises(ValueError, match="at least two seeds"):
        judged("coop", "a claim", {}, [3.0])


def test_without_names_all_checks_run(imitated):
    assert [verdict.system for verdict in verify()] == list(claims()) == imitated


def test_names_are_checked_before_anything_is_measured(imitated, monkeypatch):
    with pytest.raises(VlmlabError, match="unknown system 'cop'; did you mean coop"):
        verify(["tpt", "cop"])
    some = {key: claim for key, claim in claims().items() if key != "maple"}
    monkeypatch.setattr(checks, "claims", lambda: some)
    with pytest.raises(VlmlabError, match="system 'maple' has no check yet"):
        verify(["tpt", "maple"])
    assert not imitated


def test_verdicts_are_kept_in_a_file_line_by_line(tmp_path):
    path = tmp_path / "verdicts.csv"
    record([Verdict("tpt", "a claim, in words", {"gain": 1.0}, True)], path)
    record([Verdict("coop", "first", {}, False, cause="a small world")], path)
    record([Verdict("coop", "again", {"sd": [1, 2]}, False, inconclusive="too few")], path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [["coop", "inconclusive"], ["tpt", "holds"]]
    assert "again" in lines[1] and "first" not in lines[1] and "too few" in lines[1]
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(VlmlabError, match="no table of verdicts"):
        record([], tmp_path / "other.csv")
    assert (tmp_path / "other.csv").read_text() == "a,b\n1,2\n"
