"""A real Jupyter server behind every VM: isolated, let in by token, cut in the midst, ended from outside and inside."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import websocket
from colab_fixture import ColabSim, ColabVm, ask, colab_sim_running, heard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a container with a root of its own")
PATIENCE = 60.0
ROOT = Path(__file__).parents[2]


def until(fact: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := fact()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return found


def to_the_end(channel: websocket.WebSocket) -> list[str]:
    """Read until a connection ends, however it does, which it must."""
    frames = []
    while True:
        try:
            frame = channel.recv()
        except (ConnectionError, websocket.WebSocketConnectionClosedException):
            break
        if not frame:
            break
        frames.append(str(frame))
    channel.shutdown()  # `close` leaves a socket open whose peer was quicker
    return frames


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[ColabSim, str, str]]:
    """One VM with one kernel for all tests that harm neither, as (simulator, endpoint, kernel)."""
    with colab_sim_running(rate=0.01, machines=True) as sim:
        row = sim.assigned()
        yield sim, row["endpoint"], ColabVm.of(row).new_kernel()
        sim.end()


@pytest.fixture
def vm(shared: tuple[ColabSim, str, str]) -> Iterator[ColabVm]:
    """Its way in, with a fresh token; faults go after the test."""
    sim, _, _ = shared
    yield ColabVm.of(sim.listed()[0])
    requests.delete(f"{sim.control}/faults", timeout=30).raise_for_status()


@contextmanager
def rented(**options: Any) -> Iterator[tuple[ColabSim, ColabVm, str]]:
    """A VM of a test's own, as (simulator, way in, endpoint)."""
    with colab_sim_running(machines=True, **options) as sim:
        row = sim.assigned()
        yield sim, ColabVm.of(row), row["endpoint"]
        if sim.listed():
            sim.unassign(row["endpoint"])


# ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cell_runs_as_it_would_on_colab(shared, vm):
    code = """
import os, sys, subprocess, socket
pids = [name for name in os.listdir("/proc") if name.isdigit()]
smi = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
host = subprocess.run(["ls", "/tmp"], capture_output=True, text=True).stdout
print([os.getcwd(), os.environ["HOME"], smi.stdout.strip(), len(pids) < 12, socket.gethostname(), "test_" in host])
"""
    endpoint = shared[1]
    assert vm.run(shared[2], code).strip() == str(["/content", "/root", "Tesla T4", True, endpoint, False])


def test_a_file_goes_there_in_chunks_and_comes_back(vm):
    for chunk, data in ((1, b"one "), (2, b"two "), (-1, b"three")):
        body = {"type": "file", "format": "base64", "content": base64.b64encode(data).decode(), "chunk": chunk}
        assert vm.call("PUT", "/api/contents/content/some%20where.bin", json=body).status_code in {200, 201}
    query = {"colab-runtime-proxy-token": vm.token, "type": "file", "format": "base64", "content": "1"}
    reply = requests.get(f"{vm.url}/api/contents/content/some%20where.bin", params=query, timeout=60)
    assert base64.b64decode(reply.json()["content"]) == b"one two three"
    assert vm.call("DELETE", "/api/contents/content/some%20where.bin").status_code == 204
    assert vm.call("GET", "/api/contents/content/some%20where.bin").status_code == 404


def test_its_resources_are_told(vm):
    told = vm.call("GET", "/api/colab/resources").json()
    assert told["gpus"][0]["name"] == "Tesla T4"
    assert told["disks"][0]["filesystem"]["totalBytes"] > told["disks"][0]["filesystem"]["usedBytes"]
    assert told["memory"]["totalBytes"] > 0


def test_its_terminal_types_and_ends(vm):
    terminal = vm.connect(f"/colab/tty?colab-runtime-proxy-token={vm.token}")
    terminal.send(json.dumps({"rows": 24, "cols": 100}))
    terminal.send(json.dumps({"data": "stty size; echo $((6 * 7)); exit\n"}))
    said = "".join(json.loads(frame)["data"] for frame in to_the_end(terminal))
    assert "24 100" in said
    assert "42" in said


# ── who is let in ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_that_ended_gets_404_and_a_fresh_one_finds_all_as_it_was(shared):
    sim, _, kernel = shared
    sim.faults({"token_ttl": {"seconds": 20, "times": 1}})
    short = ColabVm.of(sim.listed()[0])
    assert short.run(kernel, "kept = 41") == ""
    sim.advance(21)
    assert short.call("GET", "/api/kernels").status_code == 404
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        short.connect(f"/api/kernels/{kernel}/channels")
    assert refused.value.status_code == 404
    assert ColabVm.of(sim.listed()[0]).run(kernel, "print(kept + 1)").strip() == "42"


def test_a_token_that_ended_may_get_401(shared, vm):
    shared[0].faults({"token_401": 1})
    vm.token = "0" * 48
    assert [vm.call("GET", "/api").status_code for _ in range(2)] == [401, 404]


def test_a_connection_outlives_its_token(shared):
    sim, _, kernel = shared
    sim.faults({"token_ttl": {"seconds": 20, "times": 1}})
    channel = ColabVm.of(sim.listed()[0]).connect(f"/api/kernels/{kernel}/channels?session_id=s")
    sim.advance(21)
    assert heard(channel, ask(channel, "print('still')")).strip() == "still"
    channel.shutdown()


# ── the way there ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_websocket_is_cut_in_the_midst_and_the_cell_goes_on(shared, vm):
    sim, endpoint, kernel = shared
    channel = vm.connect(f"/api/kernels/{kernel}/channels?session_id=s")
    there = lambda name: vm.call("GET", f"/api/contents/content/{name}").status_code == 200  # noqa: E731
    ask(channel, "import time; open('/content/begun', 'x').close(); time.sleep(1); open('/content/after', 'x').close()")
    until(lambda: there("begun"), "the cell did not begin")  # cut before, it would not have been heard
    sim.faults({"websocket_cut": {"instance": endpoint, "after": 0}})
    to_the_end(channel)
    until(lambda: there("after"), "the cell did not go on")


def test_the_way_there_takes_no_large_file_takes_its_time_and_fails(shared, vm):
    sim = shared[0]
    body = {"type": "file", "format": "text", "content": "x" * 2000}
    sim.faults({"contents_413": {"bytes": 1000}})
    assert vm.call("PUT", "/api/contents/content/large", json=body).status_code == 413
    small = {**body, "content": "x"}
    assert vm.call("PUT", "/api/contents/content/large", json=small).status_code == 201
    sim.faults({"contents_slow": {"seconds": 0.003, "times": 1}, "proxy_error": {"of": "kernels", "times": 1}})
    began = time.monotonic()
    assert vm.call("GET", "/api/contents/content/large").status_code == 200
    assert time.monotonic() - began >= 0.3
    assert [vm.call("GET", "/api/kernels").status_code for _ in range(2)] == [502, 200]


def test_the_link_can_be_cut(shared, vm):
    sim, endpoint, kernel = shared
    channel = vm.connect(f"/api/kernels/{kernel}/channels?session_id=s")
    assert sim.tell("/link", {"instance": endpoint, "do": "cut"}) == {"links": 1}
    to_the_end(channel)
    assert vm.call("GET", "/api").status_code == 200


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unassign_ends_everything_on_it_and_its_way_in_says_404():
    with rented() as (sim, vm, endpoint):
        kernel = vm.new_kernel()
        channel = vm.connect(f"/api/kernels/{kernel}/channels?session_id=s")
        ask(channel, "import time; time.sleep(600)")
        folder = Path(sim.exports["GOOGLE_APPLICATION_CREDENTIALS"]).parent / endpoint
        assert folder.exists()
        assert sim.unassign(endpoint).status_code == 204
        to_the_end(channel)
        assert vm.call("GET", "/api").status_code == 404
        until(lambda: not folder.exists(), "its disk is still there")
        assert sim.state()["troubles"] == []


def test_a_child_of_a_kernel_may_end_its_own_vm_and_it_may_be_refused():
    post = 'subprocess.Popen(["sh", "-c", "{}"], start_new_session=True)'
    curl = "curl -sS -o /content/said -w '%{http_code}' -X POST http://$TBE_RUNTIME_ADDR/unassign > /content/code"
    code = f"import subprocess; {post.format(curl)}"
    with rented() as (sim, vm, endpoint):
        kernel = vm.new_kernel()
        sim.faults({"runtime_refuses": {"instance": endpoint, "status": 403}})
        vm.run(kernel, code)
        read = "import pathlib; print(pathlib.Path('/content/code').read_text())"
        until(lambda: "403" in vm.run(kernel, read), "nobody answered")
        assert len(sim.listed()) == 1
        sim.faults({"runtime_refuses": {"instance": endpoint, "status": 0}})
        post_again = vm.connect(f"/api/kernels/{kernel}/channels?session_id=s")
        ask(post_again, code)
        until(lambda: not sim.listed(), "it did not end")
        to_the_end(post_again)
        assert [row["ended_by"] for row in sim.meter()["allocations"]] == ["inside"]


def test_a_busy_kernel_is_activity_and_an_idle_one_is_none():
    with rented(rate=0.01, faults={"idle_reaper": {"seconds": 600}}) as (sim, vm, _):
        kernel = vm.new_kernel()
        channel = vm.connect(f"/api/kernels/{kernel}/channels?session_id=s")
        ask(channel, "import time; time.sleep(600)")
        until(lambda: vm.call("GET", f"/api/kernels/{kernel}").json()["execution_state"] == "busy", "it is not busy")
        for _ in range(3):
            before = sim.state()["instances"][0]["active"]
            sim.advance(601)
            until(lambda was=before: sim.state()["instances"][0]["active"] > was, "nobody looked")
        assert len(sim.listed()) == 1
        assert vm.call("POST", f"/api/kernels/{kernel}/interrupt").status_code == 204
        until(lambda: vm.call("GET", f"/api/kernels/{kernel}").json()["execution_state"] == "idle", "it is busy")
        channel.shutdown()
        sim.advance(601)
        until(lambda: not sim.listed(), "it was not taken")
        assert [row["ended_by"] for row in sim.meter()["allocations"]] == ["idle"]


def test_nothing_of_a_vm_outlives_a_simulator_that_is_killed(tmp_path):
    argv = [sys.executable, "-m", "simulators", "colab"]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(argv, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            told = json.loads(process.stdout.readline())
            sim = ColabSim(told["url"], told["control"], told["exports"])
            vm = ColabVm.of(sim.assigned())
            vm.run(vm.new_kernel(), "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)")
            assert len(living_below(tmp_path)) >= 3
        finally:
            process.kill()
    until(lambda: not living_below(tmp_path), "something lives on")


def living_below(folder: Path) -> list[str]:
    """Name the processes in whose environment or command a folder stands."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "environ").read_bytes() + (path / "cmdline").read_bytes()
        except OSError:
            continue  # ended meanwhile
        if str(folder).encode() in words:
            found.append(path.name)
    return found


def test_a_disk_may_be_full():
    with rented(rate=0.01, faults={"disk_full": {"after": 60}}) as (sim, vm, _):
        kernel = vm.new_kernel()
        assert vm.run(kernel, "open('/content/some', 'wb').write(bytes(3_000_000))") == ""
        sim.advance(61)
        write = "open('/content/more', 'ab').write(bytes(3_000_000))"
        until(lambda: "No space left" in vm.run(kernel, write), "there is room yet")
