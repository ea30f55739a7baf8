"""Gives a torch without GPUs the machine's: `torch.cuda` answers, and what is asked for on "cuda" is done on the CPU.

    install(torch, "…/gpu.json")        # by sitecustomize.py, when torch was just imported

Devices are rewritten in simulated_devices.py. What is not here fails as on a torch built without CUDA.
Two faults: `broken` = CUDA error 802, as on an H100 whose fabric manager is not up; `old` = a driver too old for this
torch. Both look as PyTorch 2.x makes them look: `is_available` warns and says False, the first use raises.
Limits: a tensor's own `device` says cpu, and `.cpu()` of one "on the GPU" is the same tensor, not a copy.
"""

from __future__ import annotations

import importlib
import json
import os
import time
import types
import warnings
from typing import Any

MIB = 2**20
_ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
_DUMB = "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices() "
_DUMB += "that might have already set an error? Error 802: system not yet initialized"
_OLD = (
    "The NVIDIA driver on your system is too old (found version {found}). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx Alternatively, go to: "
    "https://pytorch.org to install a PyTorch version that has been compiled with your version of the CUDA driver."
)


class Properties(types.SimpleNamespace):
    """What get_device_properties gives."""


class Stream:
    """A queue of work: here all is done at once."""

    def __init__(self, device: Any = None, priority: int = 0, **_: Any) -> None:
        self.device, self.priority, self.cuda_stream = device, priority, 0

    def __enter__(self) -> Stream:  # noqa: PYI034 (no type checker reads the image)
        """Do nothing: everything is in order."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def query(self) -> bool:
        """Say that all is done."""
        return True

    def synchronize(self, *_: Any) -> None:
        """Wait for nothing."""

    wait_event = wait_stream = synchronize

    def is_capturing(self) -> bool:
        """Say that no graph is made."""
        return False

    def record_event(self, event: Event | None = None) -> Event:
        """Take the time."""
        event = event or Event()
        event.record()
        return event


class Event:
    """A moment in a queue."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.at = 0.0

    def record(self, *_: Any) -> None:
        """Take the time."""
        self.at = time.perf_counter()

    def elapsed_time(self, end: Event) -> float:
        """Give the milliseconds until a later event."""
        return (end.at - self.at) * 1000

    def query(self) -> bool:
        """Say that it has happened."""
        return True

    def synchronize(self, *_: Any) -> None:
        """Wait for nothing."""

    wait = synchronize


class Cuda:
    """The functions of torch.cuda, each under torch's own name; a name with _ in front is torch's as well."""

    def __init__(self, torch: Any, facts: dict[str, Any]) -> None:
        self.torch, self.facts = torch, facts
        self.device_now = 0
        self.resident_before = _resident("VmRSS")  # torch itself is not on the GPU
        self.stream_now = Stream()
        self.Stream, self.Event = Stream, Event

    def fault(self) -> str:
        """Say what is wrong with CUDA here; empty = nothing."""
        if self.facts["broken"]:
            return _DUMB
        major, minor = self.facts["cuda"].split(".")
        return _OLD.format(found=int(major) * 1000 + int(minor) * 10) if self.facts["old"] else ""

    def require(self, device: Any = None) -> int:
        """Give a device's number, as CUDA's first use would.

        Raises:
            RuntimeError: CUDA does not work here, or there is no such device.
        """
        if self.fault():
            raise RuntimeError(self.fault())
        if not self.device_count():
            raise RuntimeError("No CUDA GPUs are available")
        index = self.index_of(device)
        if not 0 <= index < self.device_count():
            raise RuntimeError("CUDA error: invalid device ordinal")
        return index

    def index_of(self, device: Any) -> int:
        """Give the number in 1, "cuda:1", torch.device("cuda", 1); without any it is the current device's."""
        if isinstance(device, str):
            device = self.torch.device(device)
        index = getattr(device, "index", device)
        return self.device_now if index is None else int(index)

    # ── what there is

    def is_available(self) -> bool:
        """Say whether CUDA can be used."""
        if self.fault():
            where = "(Triggered internally at /pytorch/c10/cuda/CUDAFunctions.cpp:109.)"
            warnings.warn(f"CUDA initialization: {self.fault()} {where}", stacklevel=2)
            return False
        return self.device_count() > 0

    def device_count(self) -> int:
        """Count the devices that may be seen."""
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        total = 0 if self.fault() else self.facts["count"]
        if seen is None:
            return int(total)
        return sum(1 for part in seen.split(",") if part.strip().isdigit() and int(part) < total)

    def get_device_name(self, device: Any = None) -> str:
        """Give a device's name."""
        self.require(device)
        return str(self.facts["name"])

    def get_device_capability(self, device: Any = None) -> tuple[int, ...]:
        """Give a device's compute capability."""
        self.require(device)
        return tuple(self.facts["capability"])

    def get_device_properties(self, device: Any = None) -> Properties:
        """Give a device's properties."""
        major, minor = self.get_device_capability(device)
        memory = self.facts["memory_mib"] * MIB
        sizes = {"total_memory": memory, "multi_processor_count": 72, "L2_cache_size": 6 * MIB, "warp_size": 32}
        more = {"max_threads_per_multi_processor": 1536, "shared_memory_per_block": 49152, "is_integrated": 0}
        return Properties(name=self.facts["name"], major=major, minor=minor, **sizes, **more)

    def is_bf16_supported(self, including_emulation: bool = True) -> bool:  # noqa: FBT001, FBT002 (torch's own)
        """Say whether bfloat16 works."""
        return self.is_available() and (including_emulation or self.facts["capability"][0] >= 8)

    def is_tf32_supported(self) -> bool:
        """Say whether tf32 works."""
        return self.is_available() and self.facts["capability"][0] >= 8

    def is_initialized(self) -> bool:
        """Say whether CUDA was used yet."""
        return not self.fault()

    def init(self) -> None:
        """Use CUDA for the first time."""
        self.require()

    _lazy_init = init

    def _lazy_call(self, call: Any, **_: Any) -> None:
        call()

    def _is_in_bad_fork(self) -> bool:
        return False

    def get_arch_list(self) -> list[str]:
        """Name what this torch was built for."""
        return _ARCHITECTURES if self.is_available() else []

    def can_device_access_peer(self, *_: Any) -> bool:
        """Say that GPUs see each other."""
        return True

    # ── which one

    def current_device(self) -> int:
        """Give the current device's number."""
        return self.require()

    def set_device(self, device: Any) -> None:
        """Choose the current device; a negative number changes nothing."""
        if self.index_of(device) >= 0:
            self.device_now = self.require(device)

    def _exchange_device(self, device: int) -> int:
        before = self.device_now
        self.set_device(device)
        return before

    _maybe_exchange_device = _exchange_device

    # ── time

    def synchronize(self, device: Any = None) -> None:
        """Wait for nothing: everything was done at once."""
        self.require(device)

    def ipc_collect(self) -> None:
        """Collect nothing."""

    def current_stream(self, device: Any = None) -> Stream:
        """Give the one stream."""
        self.require(device)
        return self.stream_now

    default_stream = current_stream

    def stream(self, stream: Stream | None) -> Stream:
        """Give a context in which nothing is different."""
        return stream or self.stream_now

    def set_stream(self, stream: Stream) -> None:
        """Take another stream."""
        self.stream_now = stream

    def is_current_stream_capturing(self) -> bool:
        """Say that no graph is made."""
        return False

    # ── memory: what the process grew by since torch was loaded

    def memory_allocated(self, device: Any = None) -> int:
        """Give the bytes in use."""
        self.require(device)
        return max(0, _resident("VmRSS") - self.resident_before)

    def max_memory_allocated(self, device: Any = None) -> int:
        """Give the peak."""
        self.require(device)
        return max(0, _resident("VmHWM") - self.resident_before)

    memory_reserved, max_memory_reserved = memory_allocated, max_memory_allocated

    def reset_peak_memory_stats(self, device: Any = None) -> None:
        """Start the peak anew."""
        self.require(device)
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:  # noqa: PTH123 (as everywhere in the image)
            file.write("5")

    reset_max_memory_allocated = reset_accumulated_memory_stats = reset_peak_memory_stats

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        """Give (free, total)."""
        total = self.facts["memory_mib"] * MIB
        return max(0, total - self.memory_allocated(device)), total

    def memory_stats(self, device: Any = None) -> dict[str, int]:
        """Give the few numbers that are asked for."""
        now, peak = self.memory_allocated(device), self.max_memory_allocated(device)
        kinds = ("allocated_bytes.all", "reserved_bytes.all", "active_bytes.all")
        return {f"{kind}.{key}": value for kind in kinds for key, value in (("current", now), ("peak", peak))}

    def empty_cache(self) -> None:
        """Give back nothing."""

    # ── randomness: the CPU's generator is drawn from, so it is the one that is seeded and kept

    def manual_seed(self, seed: int) -> None:
        """Seed."""
        self.torch.default_generator.manual_seed(int(seed))

    manual_seed_all = manual_seed

    def seed(self) -> None:
        """Seed from nowhere."""
        self.torch.default_generator.seed()

    seed_all = seed

    def initial_seed(self) -> int:
        """Give the seed."""
        return int(self.torch.default_generator.initial_seed())

    def get_rng_state(self, device: Any = None) -> Any:
        """Give the generator's state."""
        self.require(device)
        return self.torch.default_generator.get_state()

    def get_rng_state_all(self) -> list[Any]:
        """Give every device's."""
        return [self.get_rng_state(index) for index in range(self.device_count())]

    def set_rng_state(self, state: Any, device: Any = None) -> None:
        """Put a state back."""
        self.require(device)
        self.torch.default_generator.set_state(state)

    def set_rng_state_all(self, states: Any) -> None:
        """Put every device's back: there is one."""
        for state in list(states)[:1]:
            self.set_rng_state(state)


def _resident(key: str) -> int:
    """Give a size of this process from /proc/self/status, in bytes."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{key}:"))


def install(torch: Any, facts_file: str) -> None:
    """Put it all in torch's place."""
    with open(facts_file, encoding="utf-8") as file:  # noqa: PTH123
        facts = json.load(file)
    cuda = Cuda(torch, facts)
    ours = {name for name in dir(Cuda) if not name.startswith("__")} - {"fault", "require", "index_of"}
    for module in (torch.cuda, torch.cuda.memory, torch.cuda.random, torch.cuda.streams):
        for name in ours | {"Stream", "Event"}:
            if hasattr(module, name) or module is torch.cuda:
                setattr(module, name, getattr(cuda, name))
    torch.cuda.default_generators = (torch.default_generator,) * cuda.device_count()
    torch.version.cuda = "13.0" if facts["old"] else facts["cuda"]
    torch._C._cuda_getCurrentRawStream = lambda _device: 0  # noqa: SLF001 (bitsandbytes takes it when it loads)
    torch.backends.cuda.is_built = lambda: True
    torch.backends.cudnn.is_available = cuda.is_available
    torch.backends.cudnn.version = lambda: 91002
    _install_accelerator(torch, cuda)
    importlib.import_module("simulated_devices").install(torch, cuda)


def _install_accelerator(torch: Any, cuda: Cuda) -> None:
    """Let torch.accelerator speak of the same devices."""
    plain = {
        "is_available": cuda.is_available,
        "device_count": cuda.device_count,
        "current_accelerator": lambda *_, **__: None if cuda.fault() else torch.device("cuda"),
        "current_device_index": cuda.current_device,
        "set_device_index": cuda.set_device,
        "current_stream": cuda.current_stream,
        "set_stream": cuda.set_stream,
        "synchronize": cuda.synchronize,
    }
    memory = "empty_cache memory_stats memory_allocated max_memory_allocated memory_reserved max_memory_reserved"
    memory += " reset_peak_memory_stats reset_accumulated_memory_stats"
    plain |= {name: getattr(cuda, name) for name in memory.split()}
    for name, function in plain.items():
        if hasattr(torch.accelerator, name):
            setattr(torch.accelerator, name, function)
