"""The provider `colab`: Google Colab through the protocol of its own command line tool ("tunnel", surface A).

    provider.py     money plane: the contract's verbs      api.py      /tun/m: prefix, XSRF, statuses -> our errors
    credentials.py  Google's tokens, refreshed, checked     launch.py   one assign: nbh, outcome, what was really given
    reading.py      data -> assignments, balance            rates.py    units an hour, with date and confidence; dollars
    marks.py        which assignment is whose               ways.py     the list, the ways in, whose a stranger is
    door.py         what the byte plane gets of the money plane
    remote.py       byte plane, over the VM's own Jupyter server: shipping.py, fetching.py, in parts: parts.py
    jupyter.py      contents and kernels over HTTP          channel.py  one kernel's websocket
    kernels.py      one kernel that answers, one that waits desk.py     payload/door.py's questions through a kernel
    inside.py       what runs in the kernel                 ender.py    how the VM ends itself, which can't be tried

Colab ends a VM by idleness and age, at times that it does not publish; it has no time limit of its own to set.
"""

from providers.colab.provider import ColabProvider

__all__ = ["ColabProvider"]
