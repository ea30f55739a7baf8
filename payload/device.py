"""What this machine's device has, and what is chosen for it: dtype, attention, optimizer, each with its reason.

    gpu = device.choose(config)            # prints "device: NVIDIA L4, …", "dtype: bfloat16, …", …
    with gpu.autocast(): …                 # weights stay float32, arithmetic in gpu.dtype
    optimizer = device.make_optimizer(gpu, parameters, learning_rate=…, weight_decay=…)

The config's own word wins where the device can do it. Not here: multi-GPU, quantised loading.
"""

import contextlib
import importlib.util
import os
import random
from dataclasses import dataclass

import checkpoint
import torch

# Dense tensor-core peaks in TFLOP/s for bf16 (fp16 where the card has no bf16), by torch's name of the device without
# "NVIDIA ". GeForce cards: the rate with float32 accumulation, which is what PyTorch gets. Sources:
# stas00/ml-engineering compute/accelerator (2026-08), karpathy/nanochat common.py (2026-07), Lightning-AI
# fabric/utilities/throughput.py (2026-07, after NVIDIA's data sheets), runpod/docs gpu-types (2026-08); A10G,
# A4000-A5000, Ada workstation cards, 3090 Ti, 4080 and 5080: cores x clock.
# Left out on purpose: RTX PRO 6000 (sources differ by 2x) and the PCIe V100 (its exact name was not found).
PEAK_TFLOPS = {
    "Tesla T4": 65,
    "Tesla V100-SXM2-16GB": 125,
    "Tesla V100-SXM2-32GB": 125,
    "A10": 125,
    "A10G": 70,
    "A40": 149.7,
    "A100-SXM4-40GB": 312,
    "A100-PCIE-40GB": 312,
    "A100-SXM4-80GB": 312,
    "A100 80GB PCIe": 312,
    "RTX A4000": 76.7,
    "RTX A4500": 94.6,
    "RTX A5000": 111.1,
    "RTX A6000": 154.8,
    "L4": 121,
    "L40": 181,
    "L40S": 362,
    "RTX 2000 Ada Generation": 48,
    "RTX 4000 Ada Generation": 106.9,
    "RTX 5000 Ada Generation": 261.1,
    "RTX 6000 Ada Generation": 364.2,
    "GeForce RTX 3090": 71,
    "GeForce RTX 3090 Ti": 80,
    "GeForce RTX 4080": 97.5,
    "GeForce RTX 4080 SUPER": 104.4,
    "GeForce RTX 4090": 165.2,
    "GeForce RTX 5080": 112.6,
    "GeForce RTX 5090": 209.5,
    "H100 PCIe": 756,
    "H100 80GB HBM3": 989,
    "H100 NVL": 835,
    "GH200 480GB": 989,
    "H200": 989,
    "H200 NVL": 836,
    "B200": 2250,
    "B300 SXM6 AC": 2250,
    "AMD Instinct MI300X OAM": 1307.4,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# What transformers' TrainingArguments call the same optimizers.
HF_OPTIMIZERS = {"adamw": "adamw_torch", "adamw_8bit": "adamw_8bit", "paged_adamw_8bit": "paged_adamw_8bit"}


@dataclass(frozen=True)
class Device:
    """One device and the choices made for it."""

    torch_device: torch.device
    name: str  # as torch says it; "cpu" where there is no GPU
    capability: tuple  # (8, 0) on an A100; () on a CPU
    dtype: torch.dtype  # of the arithmetic
    attention: str  # attn_implementation for transformers
    optimizer: str  # adamw | adamw_8bit | paged_adamw_8bit
    tf32: bool
    peak_flops: float  # dense peak in FLOP/s at `dtype`; 0 = unknown

    @property
    def is_cuda(self):
        """Tell whether this is a GPU."""
        return self.torch_device.type == "cuda"

    @property
    def hf_optimizer(self):
        """Give the name that TrainingArguments(optim=) takes."""
        return "adamw_torch_fused" if self.optimizer == "adamw" and self.is_cuda else HF_OPTIMIZERS[self.optimizer]

    def autocast(self):
        """Give the context in which forward passes run: mixed precision below float32, nothing at float32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.torch_device.type, self.dtype)

    def scaler(self):
        """Give the loss scaler: float16 needs one lest small gradients vanish; for the others it does nothing."""
        return torch.amp.GradScaler(self.torch_device.type, enabled=self.dtype == torch.float16)


def choose(config, *, prefer_optimizer="adamw", model_class=None):
    """Choose by what the device has, print each choice with its reason, and give them all.

    `model_class` is the class of transformers that will be loaded: not each has every attention.
    """
    where, name, capability = _find(config.get("device", "auto"))
    dtype, dtype_why = _dtype(config.get("dtype", "auto"), where.type, capability, checkpoint.begun().get("dtype"))
    checkpoint.HOLDS["dtype"] = str(dtype).removeprefix("torch.")
    attention, attention_why = _attention(config.get("attention", "auto"), capability, model_class)
    optimizer, optimizer_why = _optimizer(config.get("optimizer", "auto"), prefer_optimizer, where.type)
    tf32 = capability >= (8, 0)
    if tf32:
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    peak = peak_flops(name, dtype)
    print(f"device: {name}, {'compute capability %d.%d' % capability if capability else 'no GPU used'}")
    print(f"dtype: {str(dtype).removeprefix('torch.')}, {dtype_why}")
    print(f"attention: {attention}, {attention_why}")
    print(f"optimizer: {optimizer}, {optimizer_why}")
    print(f"tf32: {'on, capability 8.0 and up have it' if tf32 else 'off, this device has none'}")
    print(f"peak: {f'{peak / 1e12:g} TFLOP/s dense' if peak else 'unknown here, so utilisation is 0'}")
    memory = "GPU allocations" if where.type == "cuda" else "the process's resident set (no GPU)"
    print(f"memory: peaks are of {memory}", flush=True)
    return Device(where, name, capability, dtype, attention, optimizer, tf32, peak)


def peak_flops(name, dtype):
    """Give the dense peak in FLOP/s of a device by its exact name; 0 where it is not known (MIG slices, new cards)."""
    if dtype == torch.float32:
        return 0.0  # depends on tf32 and on the kernels: no honest single number
    return PEAK_TFLOPS.get(name.removeprefix("NVIDIA "), 0) * 1e12


def _find(wish):
    if wish == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu"), "cpu", ()
    return torch.device("cuda", 0), torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0)


def _dtype(wish, kind, capability, begun=None):
    if wish != "auto":
        return DTYPES[wish], "as the config says"
    least = {"float32": (0, 0), "bfloat16": (8, 0), "float16": (7, 0)}
    on_cpu = {"float32", "bfloat16"}  # the loss scaler of float16 wants CUDA
    if begun in on_cpu if kind == "cpu" else begun in least and capability >= least[begun]:
        return DTYPES[begun], "as this run began"
    return _usual(kind, capability)


def _usual(kind, capability):
    if kind == "cpu":
        return torch.float32, "CPUs are not quicker at less"
    if capability >= (8, 0):
        return torch.bfloat16, "capability 8.0 and up have it in hardware, with float32's range"
    if capability >= (7, 0):
        return torch.float16, "capability 7.x has no bfloat16; the loss is scaled"
    return torch.float32, "below capability 7.0 half precision is not quicker"


def _attention(wish, capability, model_class=None):
    plain, why = "sdpa", "runs everywhere and needs no package"
    if not getattr(model_class, "_supports_sdpa", True):  # gemma2, gpt_oss, deberta-v2 (transformers 5.23)
        plain, why = "eager", f"{model_class.__name__} has no sdpa"
    if wish == "auto" or (wish == "sdpa" and plain == "eager"):
        return plain, why
    if wish in {"sdpa", "eager"}:
        return wish, "as the config says"
    package, least = ("flash_attn", (8, 0)) if wish == "flash_attention_2" else ("flash_attn_3", (9, 0))
    if not getattr(model_class, "_supports_flash_attn", True):
        return plain, f"{model_class.__name__} has no {wish}"
    if capability < least:
        return plain, f"{wish} needs capability {least[0]}.{least[1]}"
    if importlib.util.find_spec(package) is None:
        return plain, f"{wish} needs the package {package}, which is not installed"
    return wish, "as the config says"


def _optimizer(wish, prefer, kind):
    if kind == "cpu" and "paged_adamw_8bit" in {wish, prefer if wish == "auto" else ""}:
        return "adamw_8bit", "as paged_adamw_8bit, but a CPU has nothing to page to"
    if wish != "auto":
        return wish, "as the config says"
    small = "its state is a quarter of AdamW's"
    why = {"adamw": "the plain choice where memory allows", "adamw_8bit": small, "paged_adamw_8bit": small}
    return prefer, why[prefer]


def make_optimizer(gpu, parameters, *, learning_rate, weight_decay, betas=(0.9, 0.999)):
    """Build the chosen AdamW: weight decay for matrices only, fused on a GPU; betas as PyTorch's own."""
    trained = [weight for weight in parameters if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.dim() >= 2], "weight_decay": weight_decay},
        {"params": [weight for weight in trained if weight.dim() < 2], "weight_decay": 0.0},  # biases and norms
    ]
    if gpu.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=gpu.is_cuda)
    import bitsandbytes

    kind = {"adamw_8bit": bitsandbytes.optim.AdamW8bit, "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit}
    return kind[gpu.optimizer](groups, lr=learning_rate, betas=betas)


def seed_everything(seed):
    """Seed every generator and ask for deterministic kernels, so that a resumed run repeats the uninterrupted one."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it, before CUDA starts
    random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)  # warn: some kernels have no deterministic twin
    torch.backends.cudnn.benchmark = False  # its choice of kernel may differ from run to run


def is_out_of_memory(error):
    """Tell whether an error means that the device, or the host, has no memory left."""
    # torch.OutOfMemoryError is a RuntimeError too; cuBLAS, bitsandbytes and the CPU's allocator raise the plain one.
    words = ("out of memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
