"""The byte plane's road to a machine: SSH, with nothing taken on trust.

    keys.py    pairs made here, and the lines that name them    link.py    one connection: pinned, kept, mended
    pulse.py   how a dead peer is noticed                       stream.py  one command: in, out, how it ended
    bulk.py    large files: pipelined, resumed, verified        trees.py   many small files in one stream

Heavy (paramiko, fabric): imported by what opens a machine, never by `gpurun --help` or `ps`.
"""
