"""A simulated machine's torch: it has the machine's GPUs, works for them on the CPU, and fails as theirs would.

One Python for all of it, since torch takes seconds to load; each test then looks at a part of what it told.
"""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from simulators.machine import image

LOOK = r"""
import json, sys, threading, warnings
import importlib.util as util
assert util.find_spec("torch") is not None  # whoever asks first must not spoil it for who imports
import torch
from torch import nn

told = {}

def tell(function):
    try:
        told[function.__name__] = function()
    except Exception as error:
        told[function.__name__] = f"{type(error).__name__}: {error}"
    return function

@tell
def device():
    p = torch.cuda.get_device_properties(0)
    names = [torch.cuda.get_device_name(1), p.name, list(torch.cuda.get_device_capability()), p.total_memory]
    there = [torch.cuda.is_available(), torch.cuda.device_count()]
    return [*there, *names, torch.cuda.is_bf16_supported(), torch.version.cuda]

@tell
def makers():
    a = torch.ones(2, 3, device="cuda") + torch.arange(3, device=torch.device("cuda", 1))
    a = a + torch.zeros_like(torch.ones(3), device=0) + torch.zeros(3, pin_memory=True)
    with torch.device("cuda"):
        a = a + torch.zeros(3)
    return (a.cuda() @ torch.eye(3).to("cuda:0", torch.float32).to(1) @ a.new_ones(3, 1, device="cuda")).sum().item()

@tell
def modules():
    torch.manual_seed(0)
    layer = nn.Linear(3, 2, device="cuda").to(torch.device("cuda")).cuda()
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cuda")
    with torch.autocast("cuda", torch.bfloat16):
        out = layer(torch.ones(1, 3, device="cuda"))
    scaler.scale(out.float().sum()).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    return [str(out.dtype), scaler.is_enabled(), all(torch.isfinite(w).all().item() for w in layer.parameters())]

@tell
def many_cards():
    return nn.DataParallel(nn.Linear(3, 2, device="cuda"))(torch.ones(4, 3, device="cuda")).shape[0]

@tell
def threads():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.zeros(1, device="cuda").item()))
    thread.start()
    thread.join()
    return found

@tell
def randomness():
    torch.cuda.manual_seed_all(7)
    kept = torch.cuda.get_rng_state_all()
    first = torch.rand(3, device="cuda").tolist()
    torch.cuda.set_rng_state_all(kept)
    generator = torch.Generator("cuda").manual_seed(1)
    drawn = torch.rand(2, generator=generator, device="cuda").shape[0]
    return [first == torch.rand(3, device="cuda").tolist(), drawn, isinstance(torch.default_generator, torch.Generator)]

@tell
def files():
    torch.save({"a": torch.ones(2)}, "saved")
    return torch.load("saved", map_location=torch.device("cuda", 0), weights_only=True)["a"].sum().item()

@tell
def memory():
    torch.cuda.reset_peak_memory_stats()
    big = torch.ones(2**24)  # 64 MiB
    now, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    del big
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return [now > 2**26, peak > 2**26, free < total]

@tell
def loader():
    from torch.utils.data import DataLoader
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [batch.tolist() for batch in DataLoader([1, 2, 3], batch_size=2, pin_memory=True)]

@tell
def missing_card():
    torch.zeros(1, device="cuda:2")

@tell
def missing_card_of_a_module():
    nn.Linear(1, 1).to("cuda:2")

import simulated_cuda
FACTS = json.loads(sys.argv[1])
for name in ("broken", "old"):
    cuda = simulated_cuda.Cuda(torch, {**FACTS[name]})
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        told[name] = [cuda.is_available(), cuda.device_count(), str(seen[0].message)]
    try:
        cuda.init()
    except RuntimeError as error:
        told[name].append(str(error))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What a torch with two A10 told; without an sshd, which the image does not need."""
    root = tmp_path_factory.mktemp("machine")
    (root / "etc").mkdir()
    path = image.make(root, image.Gpu("NVIDIA A10", 2, 23028, frozenset()))
    faults = {"broken": "cuda_broken", "old": "driver_old"}
    facts = {name: image.Gpu("NVIDIA A10", 2, 23028, frozenset({fault})).facts() for name, fault in faults.items()}
    done = subprocess.run(
        ["python3", "-c", LOOK, json.dumps(facts)],
        env={"PATH": path, "OMP_NUM_THREADS": "1", "HOME": str(root)},
        executable=str(root / "usr" / "bin" / "python3"),
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_torch_claims_the_cards_of_the_machine(told):
    assert told["device"] == [True, 2, "NVIDIA A10", "NVIDIA A10", [8, 6], 23028 * 2**20, True, image.CUDA]


def test_tensors_are_made_and_moved_where_cuda_is_asked_for(told):
    assert told["makers"] == 12.0


def test_a_module_learns_in_mixed_precision_with_a_fused_optimizer(told):
    assert told["modules"] == ["torch.bfloat16", True, True]


def test_a_module_over_many_cards_does_all_of_it(told):
    assert told["many_cards"] == 4


def test_it_holds_in_every_thread(told):
    assert told["threads"] == [0.0]


def test_randomness_is_seeded_kept_and_put_back(told):
    assert told["randomness"] == [True, 2, True]


def test_a_file_loads_to_the_card(told):
    assert told["files"] == 2.0


def test_memory_is_measured(told):
    assert told["memory"] == [True, True, True]


def test_pinned_memory_warns_of_nothing(told):
    assert told["loader"] == [[1, 2], [3]]


def test_a_card_that_is_not_there_is_an_error(told):
    assert (
        told["missing_card"] == told["missing_card_of_a_module"] == "RuntimeError: CUDA error: invalid device ordinal"
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [("broken", "Error 802: system not yet initialized"), ("old", r"driver .* too old \(found version 12000\)")],
)
def test_a_fault_warns_when_asked_and_raises_when_used(told, name, words):
    available, count, warning, error = told[name]
    assert (available, count) == (False, 0)
    assert warning.startswith("CUDA initialization: ")
    assert re.search(words, warning)
    assert re.search(words, error)


def test_compute_capabilities_are_nvidias():
    names = {
        "NVIDIA A10": (8, 6),
        "NVIDIA A100-SXM4-40GB": (8, 0),
        "NVIDIA H100 80GB HBM3": (9, 0),
        "NVIDIA GH200 480GB": (9, 0),
        "NVIDIA B200": (10, 0),
        "NVIDIA RTX A6000": (8, 6),
        "Quadro RTX 6000": (7, 5),
        "Tesla V100-SXM2-16GB": (7, 0),
        "NVIDIA L40S": (8, 9),
        "NVIDIA RTX 6000 Ada Generation": (8, 9),
    }
    assert {name: image.Gpu(name, 1, 1, frozenset()).facts()["capability"] for name in names} == names


def test_nothing_of_the_hosts_environment_gets_in_but_the_way_to_packages():
    host = {
        "PIP_INDEX_URL": "a",
        "UV_DEFAULT_INDEX": "b",
        "https_proxy": "c",
        "SSL_CERT_FILE": "d",
        "LAMBDA_API_KEY": "secret",
        "PIP_REQUIRE_VIRTUALENV": "1",
        "VIRTUAL_ENV": "/x",
        "PYTHONPATH": "/y",
    }
    found = image.environment(host)
    assert set(found) & set(host) == {"PIP_INDEX_URL", "UV_DEFAULT_INDEX", "https_proxy", "SSL_CERT_FILE"}
    assert "LANG" in found
    assert os.environ.get("HOME") not in found.values()
