"""Does this machine's GPU compute? Asked before any data loads, since a rented GPU that does not bills all the same.

    python gpu_check.py --driver      # the driver alone, by libcuda: needs no torch, takes a moment
    python gpu_check.py 1             # torch, and a tiny matmul on this many GPUs; 0 = torch need only import

Exit 0: it does. 10: the machine is broken, and the last line on stderr says how, the same on every machine that
fails so: no address, path or process number. 4: this torch is no use here (not there, built without CUDA); another
may be. nvidia-smi may be happy and CUDA still broken (error 802 on 7 of 8 rented H100s, 2026), hence the matmul.
"""

import ctypes
import re
import subprocess
import sys
import time

BROKEN, NO_USE = 10, 4
SIDE = 256  # of the matrices: enough for the real kernels, nothing to wait for


def main(argv):
    """Check what is asked."""
    if argv[1:] == ["--driver"]:
        return check_driver()
    try:
        import torch
    except (ImportError, OSError, AttributeError, ValueError) as error:  # AttributeError: half an installation
        return leave(NO_USE, f"torch can't be imported: {signature(error)}")
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda or 'not built in'}", flush=True)
    wanted = int(argv[1])
    try:
        for index in range(wanted):
            check_gpu(torch, index)
    except AssertionError:  # torch's word for it
        return leave(NO_USE, f"torch {torch.__version__} was built without CUDA")
    except RuntimeError as error:  # a torch.AcceleratorError is one
        return leave(BROKEN, too_old(str(error), torch.version.cuda) or signature(error))
    return 0


def check_gpu(torch, index):
    """Multiply two matrices of ones: every element of the product is their side."""
    begun = time.monotonic()
    ones = torch.ones(SIDE, SIDE, device=f"cuda:{index}")
    total = float((ones @ ones).sum().item())
    if total != SIDE**3:
        raise RuntimeError(f"a matmul of ones on a GPU gave {total:g} for {SIDE**3}")
    print(f"cuda:{index}: {torch.cuda.get_device_name(index)}, matmul right after {time.monotonic() - begun:.1f} s")


def check_driver():
    """Initialise CUDA by the driver's own library: what fails here fails with every torch, and torch is gigabytes."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0  # nothing to ask: torch brings its own words
    code = cuda.cuInit(0)
    if code == 0:
        return 0
    text = ctypes.c_char_p()
    cuda.cuGetErrorString(code, ctypes.byref(text))
    return leave(BROKEN, f"CUDA error {code}: {(text.value or b'unknown').decode(errors='replace')}")


# --- words that are the same on every machine


def signature(error):
    """Cut an error down to what names the failure."""
    text = str(error).strip() or type(error).__name__
    numbered = re.search(r"\bError (\d+): ([^\n]+)", text)
    if numbered:
        return f"CUDA error {numbered[1]}: {numbered[2].strip()}"
    text = re.split(r"\n|\. ", text)[0]
    text = re.sub(r"\b0x[0-9a-fA-F]+\b|\b[0-9a-fA-F]{4,}:[0-9a-fA-F:.]+|(?<![\w.])/[^\s:,;]+", "…", text)
    return re.sub(r"\b(pid|process|PID|Process) \d+", r"\1 …", text).rstrip(".")[:200]


def too_old(text, cuda):
    """Say in one form that the driver can't serve the CUDA that torch was built with; "" = something else is wrong."""
    if "driver on your system is too old" not in text and "driver version is insufficient" not in text:
        return ""
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        told = ""
    return f"driver {told.split('.')[0] or '(unknown)'} too old for CUDA {(cuda or '(unknown)').split('.')[0]}"


def leave(code, words):
    """Say why, last."""
    print(words, file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv))
