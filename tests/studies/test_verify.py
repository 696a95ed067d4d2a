import subprocess
import sys
from types import SimpleNamespace

import pytest

from vlmlab.errors import VlmlabError
from vlmlab.registry import registry
from vlmlab.studies import verify as checks
from vlmlab.studies.verify import Verdict, claims, verify


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
    }


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
