"""What a bare machine "trains": nothing, until its time is up. `gpurun rent` runs it as any other command.

    python payload/idle.py            # in a job's folder

Tells a step a minute, so that it is never called hung. It leaves by itself with 0 just before the agent would ask it
to: reaching the hours that were rented is no failure. SIGTERM is obeyed with 5; there is nothing to save.
"""

import json
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import processes as ps
from limits import limits_of, number

BEFORE = 2.0  # seconds before the agent's own SIGTERM (deadline - grace): the agent looks 20 times a second


def main():
    """Sleep in small pieces: `gpurun extend` may move the end, which status.json tells."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    job, clock = ps.read_json(Path("job.json")), ps.CLOCK
    begun, told = clock.steady(), -1
    every = min(60.0, float(job["max_idle_seconds"]) / 4)
    limits = limits_of(job, ps.armed(Path(), clock)[1])  # by both clocks, as the agent goes: the machine's may be wrong
    while True:
        told_by_agent = ps.read_json(Path("status.json"))
        limits.move(number(told_by_agent.get("deadline")) or limits.deadline, number(told_by_agent.get("ceiling")))
        left = limits.left(limits.deadline - float(job.get("grace_seconds") or 0) - BEFORE, clock)
        if left <= 0:
            return 0
        step = int((clock.steady() - begun) / every)
        if step > told:
            told, total = step, step + int(left / every)
            print("::metrics " + json.dumps({"stage": "idle", "step": step, "total_steps": total}), flush=True)
        time.sleep(min(1.0, every, left))


if __name__ == "__main__":
    sys.exit(main())
