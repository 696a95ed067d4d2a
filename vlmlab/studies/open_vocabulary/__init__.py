"""What the reports `detection` and `segmentation` compute and say; their notebooks only show it.

Every number comes through a result store, so that a stopped report goes on where it was.
"""

from vlmlab.studies.open_vocabulary.plan import Plan, Results, measure, run, tested_images, write_record
from vlmlab.studies.open_vocabulary.tables import (
    absent_table,
    apart_table,
    choices_table,
    cost_table,
    main_table,
    protocol,
    provenance,
    settings_table,
    summary,
)

__all__ = [
    "Plan",
    "Results",
    "absent_table",
    "apart_table",
    "choices_table",
    "cost_table",
    "main_table",
    "measure",
    "protocol",
    "provenance",
    "run",
    "settings_table",
    "summary",
    "tested_images",
    "write_record",
]
