"""Known bugs in what rents a pod at RunPod, believes it, and has it end itself."""

from __future__ import annotations

from mutant import Mutant

_PROVIDER = "providers/runpod/provider.py"
_ORDER = "providers/runpod/launch.py"
_READING = "providers/runpod/reading.py"
_WITNESS = "providers/runpod/witness.py"
_API = "providers/runpod/api.py"
_DOOR = "providers/runpod/door.py"
_ENDER = "providers/runpod/ender.py"
_COMMAND = "providers/runpod/command.py"
_PROGRAM = "payload/ender.py"

_MONEY = "tests/unit/runpod/test_runpod_money.py"
_ORDERS = "tests/unit/runpod/test_runpod_orders.py"
_HOSTILE = "tests/unit/runpod/test_runpod_hostile.py"
_ADDRESS = "tests/unit/runpod/test_runpod_door.py"
_ENDS = "tests/unit/runpod/test_runpod_ender.py"

MUTANTS = (
    Mutant(
        "a create that may have made a pod is called refused",
        _ORDER,
        '        raise UnclearError(f"{error}; it may have rented {mark}", hint=error.hint) from error\n',
        '        raise NoCapacityError(f"{error}; it may have rented {mark}", hint=error.hint) from error\n',
        (_ORDERS, "-k", "each_answer"),
    ),
    Mutant(
        "a proxy's page is taken for RunPod's refusal",
        _API,
        '    if body.get("status") != reply.status or not isinstance(detail, str):\n',
        "    if not isinstance(detail, str):\n",
        (_ORDERS, "-k", "each_answer"),
    ),
    Mutant(
        "strangers' machines are offered as the vendor's own",
        _READING,
        '            cloud=COMMUNITY if place == COMMUNITY else "",\n',
        '            cloud="",\n',
        (_MONEY, "-k", "strangers"),
    ),
    Mutant(
        "a stranger's machine is pinned to a data center",
        _READING,
        '    if cloud == "SECURE":  # never',
        '    if cloud != "":  # never',
        (_HOSTILE, "-k", "passed_over"),
    ),
    Mutant(
        "a 404 of what is listed is an end",
        _PROVIDER,
        "        if found is None and pod_id in [one.id for one in self._api.pods() if not one.gone]:\n",
        "        if found is None and not pod_id:\n",
        (_MONEY, "-k", "404"),
    ),
    Mutant(
        "any 404 is RunPod's",
        _API,
        "    return reply.status == status and problem(reply) is not None\n",
        "    return reply.status == status\n",
        (_HOSTILE, "-k", "no_absence"),
    ),
    Mutant(
        "a second order to end keeps what was read after the first",
        _WITNESS,
        "        self._taken.setdefault(pod_id, self._ahead.note(reply.asked))\n        self._gone.pop(pod_id, None)\n",
        "        self._taken.setdefault(pod_id, self._ahead.note(reply.asked))\n",
        (_MONEY, "-k", "dated"),
    ),
    Mutant(
        "what ended by itself is dated by our order",
        _WITNESS,
        "            self._taken[pod_id] = self._alive[pod_id]\n",
        "            pass\n",
        (_MONEY, "-k", "dated"),
    ),
    Mutant(
        "nobody looks at once whether a pod is gone",
        _PROVIDER,
        "        if len(doomed) == 1:",
        "        if not doomed:",
        (_MONEY, "-k", "as_documented"),
    ),
    Mutant(
        "one answer's second is taken for the vendor's clock",
        "providers/clocks.py",
        "told + _SECOND - asked)",
        "told - asked)",
        ("tests/unit/test_clocks.py",),
    ),
    Mutant(
        "only the first page of the list",
        _API,
        '            if not isinstance(page, dict) or not (page.get("hasNextPage") or page.get("nextCursor")):\n',
        "            if page is not Ellipsis:\n",
        (_MONEY, "-k", "every_page"),
    ),
    Mutant(
        "what is stopped is called gone",
        _READING,
        '        return self.status == "TERMINATED"\n',
        '        return self.status in {"TERMINATED", "EXITED"}\n',
        (_MONEY, "-k", "stopped"),
    ),
    Mutant(
        "the disk costs nothing",
        _READING,
        "    whole = cost if with_disk else cost + disk\n",
        "    whole = cost\n",
        (_MONEY, "-k", "price_is_read_back"),
    ),
    Mutant(
        "any host key will do",
        "providers/ssh/link.py",
        '        if self._told and f"{key.fingerprint}".rstrip("=") not in self._told:\n',
        "        if self._told is None:\n",
        (_ADDRESS, "-k", "does_not_name"),
    ),
    Mutant(
        "a pod whose key nobody names is trusted",
        _DOOR,
        "        if at not in self._told and not pinned and not self._access.trust_on_first_use:\n",
        "        if at is None:\n",
        (_ADDRESS, "-k", "nobody_has_named"),
    ),
    Mutant(
        "after a restart the old key is not checked again",
        _DOOR,
        "        if pinned and self._verified() == [at.host, at.port]:\n",
        "        if pinned:\n",
        (_ADDRESS, "-k", "only_at_another"),
    ),
    Mutant(
        "the attempt's private key goes into the environment",
        _ORDER,
        '        return f"{read_public(public_path(job.client_key))} {job.mark}"\n',
        "        read_public(public_path(job.client_key))\n        return job.client_key.read_text()\n",
        (_ORDERS, "-k", "nothing_secret"),
    ),
    Mutant(
        "the container's command ends",
        _COMMAND,
        "while sleep 60; do guard; done\n",
        "sleep 60\n",
        (_ORDERS, "-k", "never_ends"),
    ),
    Mutant(
        "a 404 ends the ender",
        _ENDER,
        '        "gone": [{"status": [200], "at": ["status"], "in": ["TERMINATED"]}],\n',
        '        "gone": [{"status": [404]}],\n',
        (_ENDS, "-k", "404"),
    ),
    Mutant(
        "a pod is stopped though its end was taken",
        _PROGRAM,
        '        if taken and route.get("last"):\n',
        '        if taken is None and route.get("last"):\n',
        (_ENDS, "-k", "whichever_way"),
    ),
    Mutant(
        "what an answer lacks is a null in it",
        _PROGRAM,
        "        value = value.get(key, MISSING) if isinstance(value, dict) else MISSING\n",
        "        value = value.get(key) if isinstance(value, dict) else None\n",
        ("tests/payload/test_ender.py", "-k", "no_null"),
    ),
)
