"""Known bugs in what a launch is quoted: fit, limits, and what past runs measured."""

from __future__ import annotations

from mutant import Mutant

_QUOTING = "orchestrator/quoting.py"
_MEASURING = "orchestrator/measuring.py"
_COST = "orchestrator/cost.py"
_LEARNT = "orchestrator/estimate/learnt.py"
_HOURS = "orchestrator/estimate/hours.py"

_CHOICE = ("tests/unit/test_quoting.py",)
_PAST = ("tests/unit/test_measured.py",)
_PLAN = ("tests/unit/test_plan.py", "tests/unit/test_quoting.py")

MUTANTS = (
    Mutant(
        "what does not fit is rented",
        _QUOTING,
        "    fit = [(one, quoted) for one, quoted in cards if quoted.fits]\n",
        "    fit = list(cards)\n",
        _CHOICE,
    ),
    Mutant(
        "what is not done in time is taken",
        _QUOTING,
        "    in_time = [one for one in fit if not one[1].late]\n",
        "    in_time = fit\n",
        _CHOICE,
    ),
    Mutant(
        "a wait takes offers that were never judged",
        _QUOTING,
        "    kinds = tuple(dict.fromkeys(bare(one.name) for one, _ in best))\n",
        "    kinds = ()\n",
        _CHOICE,
    ),
    Mutant(
        "a quote's worst case forgets the budget",
        _COST,
        "        return min(max(self.max_seconds, self.ceiling_seconds), lasts), attempts\n",
        "        return max(self.max_seconds, self.ceiling_seconds), attempts\n",
        _PLAN,
    ),
    Mutant(
        "smaller batches count as a measure of the larger ones",
        _MEASURING,
        "    return not steps and (used is None or planned is None or used == planned)\n",
        "    return not steps\n",
        _PAST,
    ),
    Mutant(
        "stages of other work are taken for this one's",
        _LEARNT,
        "same and one.work == same and one.completed][:MOST_ROWS]\n",
        "one.completed][:MOST_ROWS]\n",
        _PAST,
    ),
    Mutant(
        "a measured stage stands beside the modelled ones",
        _HOURS,
        "{name: span for name, span in self.by_name.items() if name not in gone} | dict(measured)",
        "self.by_name | dict(measured)",
        _PAST,
    ),
)
