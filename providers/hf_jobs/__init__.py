"""The provider `hf`: Hugging Face Jobs, through the vendor's own client. No object of that client leaves this package.

    provider.py  money plane: the contract's verbs     hub.py      the client, with deadlines and our errors
    launch.py    one job: its bucket prefix, its POST  reading.py  hardware and jobs -> offers and observations
    remote.py    byte plane: the prefix                log.py      the log, each line once, whatever drops
    images.py    which image, and why

A job is rented and started in one: it never reports READY. The Hub itself ends it after `timeoutSeconds`.
"""

from providers.hf_jobs.provider import HfProvider

__all__ = ["HfProvider"]
