"""Known bugs of a notebook's cells: what is lost, what bills on, what hangs."""

from __future__ import annotations

from mutant import Mutant

CELLS = ("tests/payload/test_cells.py",)

MUTANTS = (
    Mutant(
        "cells: a machine is released under a download",
        "payload/cells.py",
        "        if on_colab() and self.known.get(",
        "        if False and self.known.get(",
        (*CELLS, "-k", "browser_takes_the_zip or kept_to_the_deadline"),
    ),
    Mutant(
        "cells: the watchdog has no way to release",
        "payload/cells.py",
        "        if os.environ.get(ADDRESS) and lever",
        "        if not os.environ.get(ADDRESS) and lever",
        (*CELLS, "-k", "nothing_was_started"),
    ),
    Mutant(
        "cells: a rotten file is kept as whole",
        "payload/parcel.py",
        '    if digest.hexdigest() != entry["sha256"]:\n',
        '    if not entry["sha256"]:\n',
        (*CELLS, "-k", "changed_since"),
    ),
    Mutant(
        "cells: a failed training is not told",
        "payload/cells.py",
        '        if reason != "completed":\n            raise TrainingError',
        "        if not reason:\n            raise TrainingError",
        (*CELLS, "-k", "failed_is_kept"),
    ),
    Mutant(
        "cells: a release that is refused counts as done",
        "payload/cells.py",
        "            if answer.status == 200:\n",
        "            if answer.status:\n",
        (*CELLS, "-k", "refused_thrice"),
    ),
    Mutant(
        "cells: any card will do",
        "payload/cells.py",
        "        if on_colab():\n            raise RefusedError(\n",
        "        if not wanted:\n            raise RefusedError(\n",
        (*CELLS, "-k", "another_card or known_by_its_word"),
    ),
    Mutant(
        "the steps of a chain are sorted by name",
        "orchestrator/bundle.py",
        '{"config.json": json.dumps(config, indent=1).encode()}',
        '{"config.json": json.dumps(config, indent=1, sort_keys=True).encode()}',
        ("tests/unit/test_bundle.py", "-k", "chain"),
    ),
)
