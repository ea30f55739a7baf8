"""Known bugs in what stops the meter: limits, extensions, the holder on the machine, notices."""

from __future__ import annotations

from mutant import Mutant

_LIFE = "orchestrator/lifecycle.py"
_LOOP = "orchestrator/controller.py"
_LOOKS = "orchestrator/looks.py"
_CAPS = "orchestrator/caps.py"
_SPENDING = "orchestrator/spending.py"
_RECORDS = "orchestrator/records.py"
_NOTICES = "orchestrator/notices.py"
_LIMITS = "payload/limits.py"
_ENDER = "payload/ender.py"

EXTEND = (
    "tests/unit/test_extend.py",
    "--deselect",
    "tests/unit/test_extend.py::test_a_kill_at_any_line_of_an_extension_leaves_one_answer",
)
HOLDERS = ("tests/unit/test_holders.py",)
PASS = ("tests/unit/test_guard_pass.py",)
NOTICES = ("tests/unit/test_notices.py",)
DOG = ("tests/payload/test_limits.py",)
ENDER = ("tests/payload/test_ender.py",)

MUTANTS = (
    # an extension
    Mutant(
        "extended without the vendor",
        _LOOP,
        "        if wish.ceiling.timestamp() > self._row.ceiling:\n",
        "        if wish is None:\n",
        EXTEND,
    ),
    Mutant(
        "granted though the vendor can't",
        _LOOP,
        "            if not moved:\n",
        "            if moved is None:\n",
        EXTEND,
    ),
    Mutant(
        "a training whose price rose goes on",
        _LIFE,
        "    if dearer and memory.told_to_stop is None and ending is None:\n",
        "    if dearer and memory.told_to_stop is None and rules.bare:\n",
        ("tests/unit/test_decide.py",),
    ),
    Mutant(
        "granted before the machine took it up",
        _LIFE,
        "    if rules.bare or (told is not None and abs(seconds_between(told, wish.deadline)) < 1.0):\n",
        "    if rules.bare or told is not None or wish:\n",
        EXTEND,
    ),
    Mutant(
        "a stop with an old number",
        _LOOP,
        "Order(1 + self._last_wish, OrderKind.STOP)",
        "Order(1, OrderKind.STOP)",
        EXTEND,
    ),
    Mutant(
        "an extension past the budget",
        _CAPS,
        "    if budget is not None and most > budget:\n",
        "    if budget is not None and most > budget * 99:\n",
        EXTEND,
    ),
    Mutant(
        "an extension past the cap",
        "orchestrator/ledger.py",
        "                check_cap(self.runs(), run_id, wish.worst, now, monthly_cap)\n",
        "                pass\n",
        EXTEND,
    ),
    Mutant(
        "an ending run is extended",
        _CAPS,
        "    if memory.state not in _LATEST or memory.stop_requested or memory.told_to_stop is not None:\n",
        "    if memory.state not in _LATEST:\n",
        EXTEND,
    ),
    Mutant(
        "a deadline that is no later",
        _CAPS,
        "    if deadline.timestamp() <= row.deadline:\n",
        "    if deadline.timestamp() <= 0:\n",
        EXTEND,
    ),
    # who holds it, and when training saves
    Mutant(
        "nobody on the machine, and it goes on",
        _LIFE,
        "    if rules.needs_watchdog and remote is not None and _is_unheld(memory, now):\n",
        "    if rules.bare and remote is not None and _is_unheld(memory, now):\n",
        HOLDERS,
    ),
    Mutant(
        "silence taken for a want of a holder",
        _LIFE,
        "    if rules.needs_watchdog and remote is not None and _is_unheld(memory, now):\n",
        "    if rules.needs_watchdog and _is_unheld(memory, now):\n",
        ("tests/unit/test_decide.py",),
    ),
    Mutant(
        "the accepted risk is not taken",
        _RECORDS,
        '    if plan.get("accept_risk") or not any(one.price for one in candidates_of(plan)):\n',
        "    if not any(one.price for one in candidates_of(plan)):\n",
        HOLDERS,
    ),
    Mutant(
        "a guard elsewhere counts for nothing",
        _RECORDS,
        "    return places - {Place.HERE} == {Place.MACHINE}\n",
        "    return Place.MACHINE in places\n",
        HOLDERS,
    ),
    Mutant(
        "no word to save before the deadline",
        _LIFE,
        "    return rules.time_is_up if not rules.bare and now >= _save_by(rules) else None\n",
        "    return None\n",
        HOLDERS,
    ),
    Mutant(
        "a budget's deadline called a deadline",
        "orchestrator/facts.py",
        "        return Reason.BUDGET if self.budget_bound else Reason.DEADLINE\n",
        "        return Reason.DEADLINE\n",
        HOLDERS,
    ),
    Mutant(
        "a read is not kept",
        _LOOKS,
        "                if row.memory.state is State.TERMINATING:\n",
        "                if row.memory.state is State.DONE:\n",
        HOLDERS,
    ),
    Mutant(
        "an id of a double launch forgotten",
        _LOOKS,
        "for one in ids_of(memory)}\n",
        "for one in ids_of(memory)[:1]}\n",
        (*HOLDERS, "tests/unit/test_controller.py", "-k", "merely_absent or made_two"),
    ),
    # what the guard knows of this home
    Mutant(
        "ended attempts: the present one too",
        _SPENDING,
        '            over = row["attempt"] + (row["state"] == "done")\n',
        '            over = row["attempt"] + 1\n',
        PASS,
    ),
    # the machine's own holder
    Mutant(
        "limits: the ceiling is no end",
        _LIMITS,
        "    if facts.ceiling_left <= 0:\n",
        "    if facts.ceiling_left <= -3600:\n",
        DOG,
    ),
    Mutant(
        "limits: an ender waits for the agent",
        _LIMITS,
        '        return "the deadline has passed" if facts.deadline_left <= 0 else ""\n',
        '        return "the deadline has passed" if facts.deadline_left <= 0 and facts.alone else ""\n',
        DOG,
    ),
    Mutant(
        "limits: a restart wins time",
        _LIMITS,
        "    return steady - max(0.0, used or 0.0) - off\n",
        "    return steady\n",
        DOG,
    ),
    Mutant(
        "limits: the deadline moves past the ceiling",
        _LIMITS,
        "            self.deadline = deadline\n        self.deadline = min(self.deadline, self.ceiling)\n",
        "            self.deadline = deadline\n",
        DOG,
    ),
    Mutant("ender: one flicker of gone is believed", _ENDER, "SURE = 3", "SURE = 1", ENDER),
    Mutant(
        "ender: any answer means gone",
        _ENDER,
        '    return "in" not in rule or value in rule["in"]\n',
        "    return True\n",
        ENDER,
    ),
    Mutant(
        "ender: the first route only",
        _ENDER,
        '    for route in orders["routes"]:\n',
        '    for route in orders["routes"][:1]:\n',
        ENDER,
    ),
    Mutant(
        "ender: anybody reads the key",
        _ENDER,
        '    write(folder / "ender.json", orders, 0o600)\n',
        '    write(folder / "ender.json", orders, 0o644)\n',
        ENDER,
    ),
    # notices
    Mutant(
        "told again at every look",
        _NOTICES,
        "    return [notice for notice in found if notice.key not in told]\n",
        "    return found\n",
        NOTICES,
    ),
    Mutant(
        "an unproven end is not told",
        _NOTICES,
        "    if over <= 0:\n        return []\n",
        "    if over != 0:\n        return []\n",
        NOTICES,
    ),
)
