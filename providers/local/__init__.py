"""The provider `local`: this computer as a machine, for nothing. The reference for every other machine.

    __init__.py   what the rest of gpurun uses     machine.py   money plane: launch, find, inspect, terminate
    processes.py  whose a process is; ending them  remote.py    byte plane: the job's folder
    python.py     the interpreter for the payload

A run's processes hang below its watchdog (payload/watchdog.py), which lives on when gpurun does not.
"""

from providers.local.machine import LocalProvider
from providers.local.python import payload_python

__all__ = ["LocalProvider", "payload_python"]
