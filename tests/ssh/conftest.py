"""Machines for the tests of the byte plane over SSH; one on which something lives on fails its test."""

from __future__ import annotations

import pytest
from machines import Machine
from sshd import Proxy, Sshd


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path)
    yield machine
    machine.close()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory):
    """One daemon for all who only need to reach it."""
    with Sshd(tmp_path_factory.mktemp("sshd") / "a machine") as sshd:
        yield sshd


@pytest.fixture
def proxy(sshd):
    with Proxy(sshd.port) as proxy:
        yield proxy


@pytest.fixture
def link(sshd, proxy):
    link = sshd.link(proxy.port)
    yield link
    link.close()


@pytest.fixture
def there(tmp_path):
    """A folder on the machine."""
    folder = tmp_path / "the re"
    folder.mkdir()
    return folder


@pytest.fixture
def here(tmp_path):
    return tmp_path / "here"
