"""Known bugs in the guard: whom it ends, what it believes, what it says."""

from __future__ import annotations

from mutant import Mutant

JUDGE = ("tests/unit/test_guard_judge.py",)  # and what it takes for a proof
ROUNDS = ("tests/unit/test_guard_rounds.py",)
PASS = ("tests/unit/test_guard_pass.py",)
PATROL = ("tests/unit/test_guard_patrol.py",)
TIMER = ("tests/unit/test_guard_timer.py",)

_GUARD = "orchestrator/guard.py"
_ROUND = "orchestrator/guard_pass.py"
_PULSE = "orchestrator/guard_pulse.py"

MUTANTS = (
    Mutant("overdue a second late", _GUARD, "    if now >= mark.ceiling:", "    if now > mark.ceiling:", JUDGE),
    Mutant("no mark taken for ours", _GUARD, "        return Kind.FOREIGN\n", "        return Kind.OVERDUE\n", JUDGE),
    Mutant("another home judged by the clock ahead", _GUARD, "late if ours else early", "late", JUDGE),
    Mutant("our own judged by the clock behind", _GUARD, "late if ours else early", "early", JUDGE),
    Mutant("another home's attempt taken for our orphan", _GUARD, "    if mark.home != known.home:\n        return Kind.LIVE\n", "", JUDGE),
    Mutant(
        "an unknown attempt taken for an orphan",
        _GUARD,
        "    return Kind.LIVE if attempt in known.live else Kind.UNKNOWN",
        "    return Kind.LIVE if attempt in known.live else Kind.ORPHAN",
        JUDGE,
    ),
    Mutant("what ended on another account believed", _GUARD, "    if known.accounts.get(mark.run_id) != account:", "    if False:", JUDGE),
    Mutant("what has ended judged", _GUARD, "        if not one.billing:\n            continue\n", "", JUDGE),
    Mutant("one absence believed", _GUARD, "_READS = 3 ", "_READS = 1 ", JUDGE),
    Mutant("absences believed inside the list's lag", _GUARD, " or spread < self.provider.traits.list_lag_seconds:", ":", JUDGE),
    Mutant("an accepted order taken for an end", _GUARD, 'return "" if row.billing else', "return", JUDGE),
    Mutant("told once and never again", _GUARD, "        return not 0 <= self._vendors_now() - one.told < patience\n", "        return False\n", JUDGE),
    Mutant("an account that did not answer taken for well", _GUARD, "            self.trouble = _words(error)\n            return None\n", "            return {}\n", PASS),
    Mutant(
        "another account's list believed",
        _GUARD,
        "        for one in [one for one in self.owed.values() if one.account == self.account]:",
        "        for one in list(self.owed.values()):",
        JUDGE,
    ),
    Mutant("what lost its mark taken for extended", _GUARD, " if not one.to_end and one.kind is not Kind.FOREIGN}", " if not one.to_end}", ROUNDS),
    Mutant("one vendor waits for another", _GUARD, "        due = [post for post in posts if post in waiting or post.is_stale(2 * waited)]\n", "        due = waiting[:1] or list(posts)\n", JUDGE),
    Mutant("what owes nothing not looked at again", _GUARD, "if post in waiting or post.is_stale(2 * waited)]", "if post in waiting]", PATROL),
    Mutant("what is owed forgotten between passes", _ROUND, "for one in (seen.unproven if seen else ())]", "for one in ()]", PASS),
    Mutant("a missing key passed over", _ROUND, "        return name in self._before.providers or any(", "        return any(", PASS),
    Mutant("a run on another account not missed", _ROUND, 'row.plan.get("account") != post.account\n', "False\n", PASS),
    Mutant("an orphan's money not counted", _ROUND, "                self._reopen(provider, account, verdict, now + provider.skew)\n", "                continue\n", PASS),
    Mutant("told each minute", _ROUND, "0 <= pulse.when - told < REPEAT_SECONDS", "told < 0", PATROL),
    Mutant("what lasts told once", _ROUND, "REPEAT_SECONDS = 3660.0 ", "REPEAT_SECONDS = 1e9 ", PATROL),
    Mutant("an end that is waited for told as unproven", _ROUND, '            if one["id"] not in awaited\n', "", PATROL),
    Mutant("a damaged home taken for well", _ROUND, "    return StateError.exit_code if pulse.troubles else 0", "    return 0", PASS),
    Mutant("no key at all taken for well", _PULSE, "or self.blind or not self.providers)", "or self.blind)", PASS),
    Mutant("silence not said", _PULSE, "if age > SILENT_SECONDS else", "if age > 1e9 else", TIMER),
)  # fmt: skip
