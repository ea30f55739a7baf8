"""Known bugs in what rents a machine, reaches it over SSH and counts what it costs."""

from __future__ import annotations

from mutant import Mutant

_LIFE = "orchestrator/lifecycle.py"
_LOOP = "orchestrator/controller.py"
_LOOKS = "orchestrator/looks.py"
_WAITING = "orchestrator/capacity.py"
_SPENDING = "orchestrator/spending.py"
_LEDGER = "orchestrator/ledger.py"
_LAMBDA = "providers/lambdalabs/provider.py"
_ORDER = "providers/lambdalabs/launch.py"
_HTTP = "providers/http.py"
_PACING = "providers/pacing.py"

_CAPACITY = "tests/unit/test_capacity.py"
_WORST = "tests/unit/test_money.py"
_CONTROLLER = "tests/unit/test_controller.py"
_MONEY = "tests/unit/test_ledger.py"
_ADAPTER = "tests/unit/lambdalabs/test_lambda"  # .py, _end.py, …

MUTANTS = (
    # ── renting ──────────────────────────────────────────────────────────────────────────────────────────────────
    Mutant(
        "another host key is taken for silence",
        _LOOKS,
        "            return replace(seen, broken=words_of(error))\n",
        "            return seen\n",
        (_CAPACITY, "-k", "another_host_key"),
    ),
    Mutant(
        "offers are never looked at again",
        _WAITING,
        "    offers = rules.candidates if wants_planned(memory) else seen.offers\n",
        "    offers = rules.candidates\n",
        (_CAPACITY,),
    ),
    Mutant(
        "a refused offer is asked for again",
        _WAITING,
        "    return replace(free, refused=(*memory.refused, memory.offer.name), offer=None)\n",
        "    return replace(free, refused=memory.refused, offer=None)\n",
        (_CAPACITY, "-k", "followed_by_the_next or with_all_of_them"),
    ),
    Mutant(
        "candidates in no order",
        "orchestrator/plan.py",
        "    return alike(sorted(found, key=lambda offer: (offer.price, not offer.gpu_count, offer.name)))\n",
        "    return alike(sorted(found, key=lambda offer: offer.name))\n",
        ("tests/unit/test_plan.py",),
    ),
    Mutant(
        "dearer than agreed to is rented",
        _WAITING,
        " and _is_agreed_to(one, rules)]\n",
        "]\n",
        (_CAPACITY, "-k", "higher_price"),
    ),
    Mutant(
        "an allocation that costs more is kept",
        _LIFE,
        "look.price <= memory.offer.price * PRICE_TOLERANCE",
        "look.price <= memory.offer.price * 9",
        (_CAPACITY, "-k", "dearer_than_agreed"),
    ),
    Mutant(
        "a machine that does not answer is taken for running",
        _LIFE,
        "    here = Phase.QUEUED if seen.remote is None else seen.remote.phase\n",
        "    here = Phase.RUNNING if seen.remote is None else seen.remote.phase\n",
        (_CAPACITY, "-k", "never_answers"),
    ),
    Mutant(
        "one that is being ended is taken for free",
        _LIFE,
        "look is None or not proven_free(memory, look, rules):\n",
        "look is None or not (look.ending or proven_free(memory, look, rules)):\n",
        (_CONTROLLER, "-k", "carried_out or proven"),
    ),
    Mutant(
        "an end under way is ordered again and again",
        _LIFE,
        "        ending = absent or (look is not None and look.ending)\n",
        "        ending = absent\n",
        (_CONTROLLER, "-k", "not_ordered_again"),
    ),
    Mutant(
        "an adopted instance is rented again",
        "orchestrator/adopt.py",
        "        max_attempts=mark.attempt,",
        "        max_attempts=3,",
        (_CAPACITY, "-k", "not_rented_again"),
    ),
    Mutant(
        "another number of gpus is rented",
        _WAITING,
        "if one.gpu_count == offer.gpu_count]\n",
        "]\n",
        (_CAPACITY, "-k", "fewer_gpus"),
    ),
    Mutant(
        "rented long after the wait was over",
        _WAITING,
        "and now >= rules.wait_until:\n",
        "and now is None:\n",
        (_CAPACITY, "-k", "sleeps_past or can_not_be_asked"),
    ),
    Mutant(
        "each refusal costs a part of a second",
        _WAITING,
        "waiting_since=memory.waiting_since + timedelta(seconds=late))\n",
        "waiting_since=now)\n",
        (_CAPACITY, "-k", "cost_nothing_of_the_time"),
    ),
    Mutant(
        "what was rented and not written down is forgotten",
        "orchestrator/safeguard.py",
        "        if row.memory.launch is Launch.INTENDED:\n",
        "        if row.memory.launch is None:\n",
        (_WORST, "-k", "could_not_be_written_down"),
    ),
    Mutant(
        "our clock counts until the vendor answers",
        "orchestrator/safeguard.py",
        " else self._provider.skew or self._last\n",
        " else self._provider.skew\n",
        (_WORST, "-k", "before_it_has_heard_it"),
    ),
    Mutant(
        "keys are dropped after the run is told to be over",
        _LOOP,
        "        if memory.is_done:  # before",
        "        if not memory:  # before",
        (_WORST, "-k", "no_key"),
    ),
    Mutant(
        "a machine called broken is trained on",
        _LIFE,
        "    if look is not None and look.failure and not rules.bare:\n",
        "    if look is None:\n",
        (_CONTROLLER, "-k", "sickens"),
    ),
    # ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────
    Mutant(
        "an end that was not carried out still dates the end",
        _SPENDING,
        ' ending = CASE WHEN :ending THEN coalesce(ending, :at) END,"',
        ' ending = CASE WHEN :ending THEN coalesce(ending, :at) ELSE ending END,"',
        (_MONEY, "-k", "not_carried_out"),
    ),
    Mutant(
        "the vendor's word on the beginning is not believed",
        _SPENDING,
        '                    "lag": lag,\n                    "began": began,\n',
        '                    "lag": lag,\n                    "began": None,\n',
        (_MONEY, "-k", "own_begin"),
    ),
    Mutant(
        "limits count while nothing can be rented",
        _LEDGER,
        "skew = ?, deadline = deadline + ?,",
        "skew = ?, deadline = deadline + 0 * ?,",
        (_MONEY, "-k", "nothing_could_be_rented"),
    ),
    Mutant(
        "money goes by our own clock",
        "orchestrator/records.py",
        "(self.ended or now) + self.skew)",
        "(self.ended or now))",
        (_MONEY, "-k", "vendor_s_clock"),
    ),
    # ── asking Lambda ────────────────────────────────────────────────────────────────────────────────────────────
    Mutant(
        "any 404 is an absence",
        _LAMBDA,
        "        if reply.status == 404 and code == api.NO_SUCH_INSTANCE:\n",
        "        if reply.status == 404:\n",
        (f"{_ADAPTER}_hostile.py", "-k", "absence"),
    ),
    Mutant(
        "what a list shows counts as absent",
        "orchestrator/lifecycle.py",
        "    if seen.strays:  # a list shows what is absent: of the reads in a row, none counts\n        memory = replace(memory, absences=())\n",
        "",
        ("tests/unit/test_decide_strays.py",),
    ),
    Mutant(
        "a refused end is taken for an end",
        _LAMBDA,
        "if look.billing and not look.ending else {}",
        "if look.billing and look.ending else {}",
        (f"{_ADAPTER}_end.py", "-k", "that_is_refused"),
    ),
    Mutant(
        "an unknown status is the end",
        "providers/lambdalabs/reading.py",
        '        return self.status == "terminated"\n',
        '        return self.status not in {"booting", "active", "unhealthy", "preempted", "terminating"}\n',
        (f"{_ADAPTER}.py", "-k", "made_up_later"),
    ),
    Mutant(
        "an unclear launch is sent again",
        _ORDER,
        "body=wish, lane=LANE, read",
        "body=wish, lane=LANE, safe=True, read",
        (f"{_ADAPTER}_launch.py", "-k", "sent_once"),
    ),
    Mutant(
        "an answer without an id is believed",
        _ORDER,
        '        raise UnclearError(f"{reply.what} took the order and gave no id that can be used")\n',
        '        return ""\n',
        (f"{_ADAPTER}_orders.py", "-k", "unclear"),
    ),
    Mutant(
        "the second page is not read",
        "providers/lambdalabs/api.py",
        "            if not token:\n                return\n",
        "            if token is not seen:\n                return\n",
        (f"{_ADAPTER}.py", "-k", "every_page"),
    ),
    Mutant(
        "the key stays registered",
        _ORDER,
        "            lambda_.drop_key(key_id)\n",
        "            pass\n",
        (f"{_ADAPTER}_end.py", "-k", "first_login"),
    ),
    Mutant(
        "the machine keeps host keys of its own",
        _ORDER,
        '{"ssh_deletekeys": True, ',
        '{"ssh_deletekeys": False, ',
        (f"{_ADAPTER}_orders.py", "-k", "our_host_key"),
    ),
    Mutant(
        "keys of living machines are tidied away",
        _LAMBDA,
        "            if not any(reading.same_attempt(one, mark) for one in listed):\n",
        "            if not any(one == mark for one in ()):\n",
        (f"{_ADAPTER}_end.py", "-k", "still_lives"),
    ),
    # ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────────
    Mutant(
        "a redirect is followed with the key",
        _HTTP,
        "        adapter = self._session.get_adapter(url)\n        return adapter.send(prepared, timeout=(CONNECT_SECONDS, read), **settings)",
        "        return self._session.send(prepared, timeout=(CONNECT_SECONDS, read), **settings)",
        ("tests/unit/test_http.py", "-k", "redirect"),
    ),
    Mutant(
        "processes do not share a pace",
        _PACING,
        "return self._change(change, _times(os.pread(file, 4096, 0)), file)",
        "return self._change(change, self._own, file)",
        ("tests/unit/test_http_pace.py", "-k", "next_process or two_processes"),
    ),
    Mutant(
        "a launch's own pace is not kept",
        _PACING,
        "        if lane:\n            time.sleep(self._take(lane))\n",
        "        if lane:\n            self._take(lane)\n",
        ("tests/unit/test_http_pace.py", "-k", "lane"),
    ),
    Mutant(
        "a 429 holds nobody back",
        _HTTP,
        "                    wait = max(wait, min(rest, _SANE_SECONDS / self._pace))\n",
        "                    wait = wait * 1\n",
        ("tests/unit/test_http.py", "-k", "429"),
    ),
    # ── SSH ──────────────────────────────────────────────────────────────────────────────────────────────────────
    Mutant(
        "any host key will do",
        "providers/ssh/link.py",
        "        if self.key and shown != self.key:\n",
        "        if not shown:\n",
        ("tests/ssh/test_link.py", "-k", "host_key"),
    ),
    Mutant(
        "a machine without a known key is trusted",
        "providers/ssh/link.py",
        "        if not self.key and not self._told and not where.access.trust_on_first_use:\n",
        "        if where.access is None:\n",
        ("tests/ssh/test_link.py", "-k", "without_a_known_key"),
    ),
    Mutant(
        "a part is as long as it looks",
        "providers/ssh/bulk.py",
        "            kept = min(left.offset, os.fstat(self._handle).st_size, wanted.size)\n",
        "            kept = min(os.fstat(self._handle).st_size, wanted.size)\n",
        ("tests/ssh/test_bulk_pull.py", "-k", "later_process or rotted or killed"),
    ),
    Mutant(
        "a large file of other bytes gets its name",
        "providers/ssh/bulk.py",
        "        whole = self._digest.hexdigest() == self._note.sha256\n",
        "        whole = bool(self._digest.hexdigest())\n",
        ("tests/ssh/test_bulk_pull.py", "-k", "manifest_that_lies"),
    ),
    Mutant(
        "a small file of other bytes gets its name",
        "providers/ssh/trees.py",
        "    if digest.hexdigest() != entry.sha256:\n",
        "    if not digest.hexdigest():\n",
        ("tests/ssh/test_trees.py", "-k", "sum_that_lies"),
    ),
    Mutant(
        "a tar's own names are believed",
        "providers/ssh/trees.py",
        '    if member.name.removeprefix("./") != entry.name or not',
        "    if not",
        ("tests/ssh/test_trees.py", "-k", "hostile_tar or refused_for"),
    ),
    Mutant(
        "a link at home leads outside",
        "providers/wire.py",
        "    if parent not in known and not _is_below(parent, folder):\n",
        "    if parent in known and not _is_below(parent, folder):\n",
        ("tests/ssh/test_trees.py", "-k", "leads_nobody_out"),
    ),
)
