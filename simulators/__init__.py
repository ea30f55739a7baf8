"""The vendors on loopback: real HTTP, real sshd, real processes, and a meter that bills until terminated.

    python -m simulators lambda|runpod|hf|colab [--seed N] [--faults JSON] [--pace X] [--boot SECONDS]

A simulator is a vendor, not a test double: it keeps state, goes by its own clock, and misbehaves in ways that were
seen. What it knows is told over HTTP only: the vendor's API at `url`, and at `control` the meter, the faults, the
clock, the link and the journal of what was asked. Shipped with gpurun, so that anyone can practise a rescue.
It imports nothing of gpurun's.
"""
