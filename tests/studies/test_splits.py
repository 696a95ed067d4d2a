"""What can be asked of whom stands in one place, which a run and a sweep obey."""

import subprocess
import sys

import pytest

from vlmlab.errors import VlmlabError
from vlmlab.registry import registry
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import MEASURED, construct
from vlmlab.studies.splits import SPLITS
from vlmlab.studies.sweep import suited


def test_every_split_is_measured():
    assert set(MEASURED) == set(SPLITS)


def test_a_sweep_is_planned_without_torch():
    code = "import sys, vlmlab.studies.splits; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("system", "dataset", "split", "reason"),
    [
        ("maskclip", "tableau", "base", "measured on all classes at once"),
        ("coop", "digits", "shift", "no shifted versions of digits"),
        ("coop", "digits", "hierarchy", "digits comes without a class hierarchy"),
    ],
)
def test_a_run_refuses_what_a_sweep_leaves_out(system, dataset, split, reason):
    assert reason in SPLITS[split].refusal(registry()[system], dataset)
    with pytest.raises(VlmlabError, match=reason):
        construct(Experiment(system, dataset, shots=0, split=split))
    assert not suited([system], [dataset], splits=(split,)) and suited([system], [dataset], splits=("all",))
