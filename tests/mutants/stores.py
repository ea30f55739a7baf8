"""Known bugs in the store: what goes to a machine, what is believed of a bucket, and data on their way."""

from __future__ import annotations

from mutant import Mutant

HUB = ("tests/store/test_store_hub.py",)
PAGE = ("tests/store/test_store_page.py",)
DATA = ("tests/store/test_stored_data.py",)
AFAR = ("tests/store/test_data_addresses.py",)

_HUB = "orchestrator/store_hub.py"
_COURIER = "payload/hub_courier.py"
_FETCH = "payload/fetch.py"
_DATA = "orchestrator/stored_data.py"

MUTANTS = (
    Mutant("this computer's token goes to a machine", _HUB, '    if not token and provider == "local":\n', "    if not token:\n", (*HUB, "-k", "never_this_computer_s")),
    Mutant("a token that opens the whole account goes to a machine", _HUB, '    if role in {"write", "read"}:\n', "    if False:\n", (*HUB, "-k", "too_much")),
    Mutant("a token that may spend goes to a machine", _HUB, "    if spends:\n", "    if False:\n", (*HUB, "-k", "too_much")),
    Mutant("a bucket that is gone taken for an empty one", _HUB, "            self._is_private()  # a bucket that is not there says nothing about its objects\n", "", (*HUB, "-k", "no_empty_one")),
    Mutant("results go into a public bucket", _HUB, "        if not self._is_private():\n", "        if False:\n", (*HUB, "-k", "everybody_can_read")),
    Mutant("files read under their names only", _COURIER, "    path = open_path(file)\n", "    path = str(getattr(file, 'name', ''))\n", (*HUB, "-k", "deletes_meanwhile")),
    Mutant("data of any content take a name", _FETCH, " or digest_of(part) != name:\n", ":\n", (*DATA, "-k", "gets_no_name")),
    Mutant("data that changed keep their old name in the store", _DATA, "        if digest_of(blob.path) != digest or ", "        if ", (*DATA, "-k", "changed_while")),
    Mutant("every launch sends its data anew", _DATA, "if there.get(one.sha256) != one.size}\n", "}\n", (*DATA, "-k", "once_for_all")),
    Mutant("the files of a living job removed", "orchestrator/store_page.py", "    if one.until > now:\n", "    if False:\n", PAGE),
    Mutant("data that changed at their address not seen", "orchestrator/data_remote.py", "[[one.name, one.size, one.state] for one in files]", "[[one.name] for one in files]", (*AFAR, "-k", "what_changed_is")),
)  # fmt: skip
