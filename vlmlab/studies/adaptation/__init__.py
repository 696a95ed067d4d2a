"""What the report `adaptation` computes and says; its notebook only shows it.

Every number comes from `run_experiment` through a result store, so that a stopped report goes on where it was.
"""

from vlmlab.studies.adaptation.inside import Inside, look_inside
from vlmlab.studies.adaptation.photos import Photographs, photographs
from vlmlab.studies.adaptation.plan import Plan, short_settings
from vlmlab.studies.adaptation.results import Results, by_family, run, write_record
from vlmlab.studies.adaptation.tables import cost_table, provenance, settings_table, summary, words_table

__all__ = [
    "Inside",
    "Photographs",
    "Plan",
    "Results",
    "by_family",
    "cost_table",
    "look_inside",
    "photographs",
    "provenance",
    "run",
    "settings_table",
    "short_settings",
    "summary",
    "words_table",
    "write_record",
]
