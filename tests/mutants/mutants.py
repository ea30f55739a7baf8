"""Known bugs in what carries a run, and in the payload."""

from __future__ import annotations

from mutant import Mutant

LIFE = ("tests/unit/test_controller.py",)  # the laws of tests/props catch them too, only later
CLAIMS = ("tests/unit/test_claims.py",)
AGENT = ("tests/payload/test_agent.py",)
SETUP = ("tests/payload/test_agent_setup.py",)
WATCHDOG = ("tests/payload/test_watchdog.py",)


_LIFE = "orchestrator/lifecycle.py"
_LOOP = "orchestrator/controller.py"
_LOOKS = "orchestrator/looks.py"
_PROOF = "orchestrator/proof.py"
_AGENT = "payload/agent.py"
_CHILDREN = "payload/children.py"
_DOG = "payload/watchdog.py"

MUTANTS = (
    Mutant(
        "deadline ignored",
        _LIFE,
        "    if timed and now >= rules.deadline:\n        return rules.time_is_up\n",
        "",
        LIFE,
    ),
    Mutant(
        "budget ignored", _LIFE, "seen.accrued_high >= rules.max_cost", "seen.accrued_high > rules.max_cost * 9", LIFE
    ),
    Mutant("stop ignored", _LIFE, "    if memory.stop_requested:\n        return Reason.STOPPED\n", "", LIFE),
    Mutant("absence believed early", _PROOF, "PROOF_READS = 3", "PROOF_READS = 1", LIFE),
    Mutant(
        "absence believed inside the list's lag",
        _PROOF,
        "    spread = max(lags * rules.list_lag_seconds, _SETTLE_SECONDS)\n",
        "    spread = 0.0\n",
        ("tests/unit/test_decide.py", "-k", "left_no_trace_only"),
    ),
    Mutant(
        "an absence counted that a lag explains",
        _PROOF,
        "seconds_between(memory.intended, at) < rules.list_lag_seconds:",
        "seconds_between(memory.intended, at) < 0:",
        ("tests/unit/test_decide.py", "-k", "does_not_count"),
    ),
    Mutant(
        "done without proof",
        _PROOF,
        "    if look.billing:\n        return False\n",
        "    if look.billing:\n        return True\n",
        LIFE,
    ),
    Mutant(
        "unclear launch sent again",
        _LIFE,
        "    if seen.strays is None or not proven_absent(memory, rules, _UNCLEAR_LAGS):\n        return Decision(memory, Act.WAIT)\n",
        "    if seen.strays is None or not proven_absent(memory, rules, _UNCLEAR_LAGS):\n        return Decision(memory, Act.LAUNCH)\n",
        LIFE,
    ),
    Mutant(
        "re-roll before the last one is gone",
        _LIFE,
        "        return _end(memory, Reason.PROVIDER, memory.detail or late, now, rules, again=True)",
        "        return _next(_failed(memory, Reason.PROVIDER, memory.detail or late, rules, now), now)",
        LIFE,
    ),
    Mutant(
        "same failure bought again",
        _LIFE,
        "        signature not in memory.signatures\n",
        "        bool(signature)\n",
        LIFE,
    ),
    Mutant(
        "completed without its files",
        _LIFE,
        "        return _end(memory, Reason.LOST, words, now, rules, again=True)",
        "        return _end(memory, memory.reason or Reason.LOST, memory.detail, now, rules)",
        LIFE,
    ),
    Mutant(
        "second allocation of a launch forgotten",
        _LIFE,
        "launch_accepted(memory, ids[0], tuple(ids[1:]))",
        "launch_accepted(memory, ids[0])",
        LIFE,
    ),
    Mutant(
        "an error read as absence",
        _LOOKS,
        '            self._trouble(f"look: {error}")\n            return Seen(accrued_high=accrued)\n        seen =',
        '            self._trouble(f"look: {error}")\n            from providers.base import Observation\n'
        '            return Seen(Observation(Phase.ABSENT, False, "no answer"), accrued_high=accrued)\n        seen =',
        LIFE,
    ),
    Mutant("terminate skipped", _LOOP, "            self._provider.terminate(ids)\n", "            pass\n", LIFE),
    Mutant(
        "intent saved after the deed",
        _LOOP,
        "        try:\n            self._save(decision.memory,",
        "        try:\n            if decision.act is Act.LAUNCH:\n"
        "                self._row = replace(self._row, memory=decision.memory)\n                self._act(decision, seen)\n"
        "            self._save(decision.memory,",
        LIFE,
    ),
    Mutant(
        "launch not noted before it is sent",
        _LOOP,
        '            with self._ledger.deed(self._lease, job.mark.attempt, "launch", text, self._clock) as deed:\n                allocation_id = self._provider.launch(job, offer)\n                deed.text = allocation_id\n',
        "            allocation_id = self._provider.launch(job, offer)\n",
        LIFE,
    ),
    Mutant(
        "another account's word believed",
        "orchestrator/reach.py",
        "    if now != planned:\n",
        "    if now is planned is None:\n",
        CLAIMS,
    ),
    Mutant(
        "of two ends the more certain one believed",
        _PROOF,
        "(look.billing, look.phase is Phase.ABSENT and not _on_its_word(look))",
        "(look.billing, look.phase is Phase.ABSENT)",
        ("tests/unit/test_holders.py", "-k", "merely_absent"),
    ),
    Mutant(
        "rented under a lost lease and kept",
        _LOOP,
        "                self._provider.terminate([allocation_id])\n",
        "                pass\n",
        LIFE,
    ),
    Mutant(
        "a launch never found costs nothing",
        _LOOP,
        "        if before.launch is Launch.INTENDED and after.launch is Launch.NOT_YET:\n",
        "        if before.launch is Launch.ACCEPTED and after.launch is Launch.INTENDED:\n",
        LIFE,
    ),
    Mutant(
        "lease not fenced",
        "orchestrator/ledger.py",
        '        if row["lease_epoch"] != lease.epoch:\n',
        '        if row["lease_epoch"] == -lease.epoch:\n',
        (*LIFE, "tests/unit/test_ledger.py"),
    ),
    Mutant(
        "two launches pass one cap",
        "orchestrator/caps.py",
        "            reserved += max(one.worst, asked, one.accrued(now.timestamp()).high)\n",
        "            reserved += one.accrued(now.timestamp()).low\n",
        ("tests/unit/test_ledger.py",),
    ),
    Mutant(
        "log of the next attempt read from the wrong byte",
        "orchestrator/follow.py",
        "            offset = max(_size(self._folder.log) - base, 0)\n",
        "            offset = _size(self._folder.log)\n",
        LIFE,
    ),
    Mutant(
        "an earlier attempt's result kept beside the next one's files",
        "orchestrator/collect.py",
        '        (dest / "result.json").unlink()\n',
        "        pass\n",
        ("tests/unit/test_collect.py",),
    ),
    Mutant(
        "a file that is not the manifest's is kept",
        "providers/local/remote.py",
        "        if found != digest:\n",
        "        if found == digest + digest:\n",
        ("tests/contract/test_contract.py", "-k", "manifest_s_never"),
    ),
    Mutant(
        "terminate hides what would not die",
        "providers/local/machine.py",
        "            if left:\n",
        "            if left is None:\n",
        ("tests/contract/test_local_jobs.py", "-k", "will_not_die"),
    ),
    Mutant(
        "agent: the deadline does not save",
        _AGENT,
        '<= 0:\n            self.stop("deadline", self.grace)\n',
        "<= 0:\n            pass\n",
        (*AGENT, "-k", "before_its_deadline"),
    ),
    Mutant(
        "agent: what a probe can't see held goes on",
        _AGENT,
        "        if self.probe.words:\n",
        "        if not self.probe.words:\n",
        ("tests/payload/test_probe.py", "-k", "deadline_cant_hold"),
    ),
    Mutant(
        "agent: one that will not leave is not killed",
        _AGENT,
        "        if now >= self.kill_at or self.time_left(self.late) <= 0:\n",
        "        if self.time_left(-60.0) <= 0:\n",
        (*AGENT, "-k", "will_not_leave"),
    ),
    Mutant(
        "agent: output counts as progress",
        _AGENT,
        "        self.idle = 0.0 if self.progress() != self.moves else",
        "        self.idle = 0.0 if time.time() else",
        (*AGENT, "-k", "only_prints"),
    ),
    Mutant(
        "a broken machine taken for a failed setup",
        _AGENT,
        "        elif ended == BROKEN:\n",
        "        elif ended < 0:\n",
        (*SETUP, "-k", "broken_machine"),
    ),
    Mutant(
        "trained though the setup failed",
        _AGENT,
        "        if self.reason:\n            return False\n",
        "",
        (*SETUP, "-k", "any_other_end"),
    ),
    Mutant(
        "agent: a loss that is not finite goes on",
        _AGENT,
        "        if self.output.diverged:\n",
        "        if self.output is None:\n",
        (*AGENT, "-k", "not_finite"),
    ),
    Mutant(
        "agent: started again for ever",
        _AGENT,
        "        moved = self.restarts == 0 or self.output.ever > self.step_at_restart\n",
        "        moved = True\n",
        (*AGENT, "-k", "without_a_new_step"),
    ),
    Mutant(
        "agent: a training's daemons outlive it",
        _CHILDREN,
        "        self.kill()\n        if self.copier",
        "        if self.copier",
        (*AGENT, "-k", "outlives"),
    ),
    Mutant(
        "agent: a dead watchdog is not replaced",
        _CHILDREN,
        "        elif now - self.guarded > 2 * tick:\n",
        "        elif now < 0.0:\n",
        (*WATCHDOG, "-k", "killed_watchdog"),
    ),
    Mutant(
        "a clock set back lengthens a job",
        "payload/limits.py",
        "        return min(moment - clock.wall(), self.armed + self.max_seconds - (self.ceiling - moment) - clock.steady())\n",
        "        return moment - clock.wall()\n",
        (*WATCHDOG, "-k", "clock"),
    ),
    Mutant(
        "watchdog: ended by signals of others",
        _DOG,
        "    ps.deaf([signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])\n",
        "    ps.deaf([signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])\n",
        (*WATCHDOG, "-k", "signals_from_others"),
    ),
)
