"""Known bugs on Hugging Face Jobs: what is submitted, what is believed of it, what comes home, and the guard there."""

from __future__ import annotations

from mutant import Mutant

MONEY = ("tests/unit/hf_jobs/test_hf_money.py",)
GUARD = ("tests/unit/hf_jobs/test_hf_guard.py",)
BYTES = ("tests/e2e/test_hf_bytes.py",)
INLINE = ("tests/e2e/test_hf_inline.py",)
PUSH = ("tests/unit/hf_jobs/test_hf_push.py",)
PUSHED = ("tests/payload/test_hub_push.py",)

_LAUNCH = "providers/hf_jobs/launch.py"
_PROVIDER = "providers/hf_jobs/provider.py"
_READING = "providers/hf_jobs/reading.py"
_REMOTE = "providers/hf_jobs/remote.py"
_LOG = "providers/hf_jobs/log.py"

MUTANTS = (
    Mutant("a job's limit forgets the queue", _LAUNCH, "    return job.max_seconds - int(queue_seconds)\n", "    return job.max_seconds\n", (*MONEY, "-k", "however_long_it_queued")),
    Mutant("a failed job is tried again and billed anew", _LAUNCH, "            attempts=1,", "            attempts=3,", (*MONEY, "-k", "however_long_it_queued")),
    Mutant("an unclear submit sent again", _LAUNCH, '        job_id = hub.run("submit", call, _SUBMIT_SECONDS)\n', '        try:\n            job_id = hub.run("submit", call, _SUBMIT_SECONDS)\n        except ProviderError:\n            job_id = hub.run("submit", call, _SUBMIT_SECONDS)\n', (*MONEY, "-k", "answer_is_lost")),
    Mutant("code goes into a public bucket", _LAUNCH, "    hub.make_bucket(bucket)\n", "", (*MONEY, "-k", "everybody_can_read")),
    Mutant("secrets shown in the environment", _LAUNCH, "            flavor=offer.name,\n", "            flavor=offer.name,\n            env={name: secret.reveal() for name, secret in job.secrets.items()},\n", (*MONEY, "-k", "no_secret_stands")),
    Mutant("an unknown stage taken for an end", _READING, "    return stage_of(job) in _TERMINAL\n", "    return stage_of(job) not in LIVE\n", (*MONEY, "-k", "nobody_knows")),
    Mutant("what never ran was billed", _READING, "            billed_until=_utc(job.finished_at) if began else _utc(job.created_at),\n", "            billed_until=_utc(job.finished_at),\n", (*MONEY, "-k", "never_billed")),
    Mutant("waits for hardware for ever", _READING, "    if limit is None or now < limit or job.started_at is not None:\n", "    if limit is not None or job.started_at is not None:\n", (*MONEY, "-k", "queue_limit")),
    Mutant("an error of the Hub's read as absence", "providers/hf_jobs/hub.py", "        if status == 404:\n", "        if status == 404 or status >= 500:\n", (*MONEY, "-k", "in_trouble")),
    Mutant("what hides behind an unknown stage is not guarded", _PROVIDER, "        listed |= {one.id: one for one in self.hub.jobs(self.namespace, labels=reading.OURS)}\n", "", GUARD),
    Mutant("another home's files tidied", _PROVIDER, ' if (self._home / "runs" / mark.run_id).is_dir()}', "}", (*MONEY, "-k", "tidying")),
    Mutant("a replayed log counted twice", _LOG, "                if seen > self._seen:\n", "                if seen:\n", (*BYTES, "-k", "twenty_times")),
    Mutant("a log that was cut at its end taken for whole", _LOG, "follow=not over)\n", "follow=True)\n", (*INLINE, "-k", "log_was_cut")),
    Mutant("an end believed before its last word", _REMOTE, '            self._wait_for_files(job, "its last word")\n', "", (*BYTES, "-k", "last_word")),
    Mutant("the Hub's time limit not known as one", _READING, '    return "job timeout" in (job.status.message or "").lower()\n', "    return False\n", (*BYTES, "-k", "at_its_limit")),
    Mutant("a public repository gets what is private", "providers/hf_jobs/repos.py", "        if public:\n", "        if not private and public:\n", PUSH),
    Mutant("pushed though it did not end well", "payload/hub_push.py", "    if code:\n        leave_as(code)\n", "", (*PUSHED, "-k", "did_not_end_well")),
    Mutant("the old pulse proves a new guard", "payload/afar.py", '            self.sent = self.out.read_bytes()\n            (self.home / "guard.json").write_bytes(self.sent)\n', '            (self.home / "guard.json").write_bytes(self.out.read_bytes())\n', ("tests/unit/test_guard_afar.py",)),
)  # fmt: skip
