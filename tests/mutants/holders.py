"""Known bugs of the holder on the machine: its decision, its ender, its coming back, what is believed of it."""

from __future__ import annotations

from mutant import Mutant

_LIMITS, _ENDER, _LEVER = "payload/limits.py", "payload/ender.py", "payload/lever.py"
_DOG, _PROCESSES, _WIRE = "payload/watchdog.py", "payload/processes.py", "providers/wire.py"

LIMITS = ("tests/payload/test_limits.py",)
ENDER = ("tests/payload/test_ender.py",)
FIRES = ("tests/payload/test_watchdog_ender.py",)
REARM = ("tests/payload/test_rearm.py",)
WIRE = ("tests/unit/test_wire.py",)

MUTANTS = (
    Mutant(
        "a finished job's machine is left to bill",
        _LIMITS,
        '        return Verdict(WAIT if facts.ender or facts.store == "busy" else END, facts.over)\n',
        "        return Verdict(END, facts.over)\n",
        LIMITS,
    ),
    Mutant(
        "an agent that hashes keeps a machine past its deadline",
        _LIMITS,
        "    if facts.ender:  # the machine is what costs",
        "    if facts.ender and not facts.alone:  # the machine is what costs",
        LIMITS,
    ),
    Mutant(
        "a reboot wins the time that was used",
        _LIMITS,
        "    return steady - max(0.0, used or 0.0) - off\n",
        "    return steady - off\n",
        LIMITS,
    ),
    Mutant(
        "a new ceiling is the wall clock's alone",
        _LIMITS,
        "            self.max_seconds += ceiling - self.ceiling\n",
        "",
        LIMITS,
    ),
    Mutant(
        "one flicker of gone stops the ender",
        _ENDER,
        "SURE = 3  #",
        "SURE = 1  #",
        (*ENDER, "-k", "flicker"),
    ),
    Mutant(
        "an error quotes the key",
        _ENDER,
        'getattr(error, "strerror", None) or type(error).__name__',
        "str(error)",
        (*ENDER, "-k", "quoted"),
    ),
    Mutant(
        "a dribbling vendor holds the ender up",
        _ENDER,
        "        thread.join(LONGEST_ASK)\n",
        "        thread.join()\n",
        (*ENDER, "-k", "dribbles"),
    ),
    Mutant(
        "a dead ender is not started anew",
        _LEVER,
        '        if self.verb != "fire" or now >= self._next:\n',
        '        if self.verb != "fire":\n',
        (*FIRES, "-k", "ender_is_killed"),
    ),
    Mutant(
        "what hangs on a dead disk keeps the machine",
        _DOG,
        "            lever.pull(dog.clock.steady())\n",
        "",
        (*FIRES, "-k", "hangs"),
    ),
    Mutant(
        "a restarted machine counts its agent as dead",
        _PROCESSES,
        "        return boot != BOOT or (",
        "        return boot == BOOT and (",
        (*REARM, "-k", "carries_the_training_on"),
    ),
    Mutant(
        "a machine without a key is called a holder",
        _WIRE,
        "    if fresh and rented:\n",
        "    if fresh and rented and proof.get('ender'):\n",
        (*WIRE, "-k", "rented"),
    ),
)
