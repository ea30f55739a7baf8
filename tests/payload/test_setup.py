"""setup.sh on a bare Debian without pip or venv, and on one whose python3 has a torch of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time

import pytest
from debian import Debian, Index, unpack

ERROR_802 = (
    "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices() that"
    " might have already set an error? Error 802: system not yet initialized"
)
TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 12000). Please update your GPU driver by downloading"
)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    served = Index(tmp_path_factory.mktemp("index"))
    yield served
    served.close()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    path = unpack(tmp_path_factory.mktemp("debian") / "root")
    yield path
    subprocess.run(["rm", "-rf", "--one-file-system", path], check=True)


@pytest.fixture
def box(tmp_path, tree, index):
    made = Debian(tmp_path / "root", tree, index)
    index.asked.clear()
    yield made
    subprocess.run(["rm", "-rf", "--one-file-system", made.root], check=True)


# ── the three ways ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bare_debian_gets_everything_from_the_lock(box):
    for module in ("pip", "ensurepip"):  # venv alone is there, and can't make an environment with pip
        argv = ["chroot", box.root, "python3", "-c", f"import {module}"]
        assert subprocess.run(argv, capture_output=True, check=False).returncode == 1
    done = box.setup()
    assert done.code == 0, done
    assert box.python("import torch, tinydep; print(torch.__version__, tinydep.where)") == "2.13.0 lock"
    assert "setup: torch 2.13.0, tinydep 1.2\n" in done.out
    for part in ("installer", "torch", "packages", "environment", "check"):
        assert re.search(rf"^setup: {part} \d+ s$", done.out, re.MULTILINE), part
    assert re.search(r"^setup: ready in \d+ s$", done.out, re.MULTILINE)


def test_a_second_setup_downloads_nothing_and_leaves_the_same_environment(box):
    assert box.setup().code == 0
    link = (box.root / "job/env").readlink()
    made = box.root / str(link).lstrip("/") / "pyvenv.cfg"
    before = made.stat()
    box.index.asked.clear()
    (box.root / "job/env").unlink()  # another attempt has a folder of its own
    assert box.setup().code == 0
    assert ((box.root / "job/env").readlink(), made.stat().st_ino, box.index.asked) == (link, before.st_ino, [])


def test_the_images_own_torch_is_kept_and_the_rest_is_installed(box):
    for wheel in ("torch-2.8.0", "tinydep-1.1", "oldscipy-1.0"):
        box.install(f"{wheel}-py3-none-any.whl")
    done = box.setup()
    assert done.code == 0, done
    assert [path for path in box.index.asked if "torch" in path] == []
    told = box.python("import torch, tinydep; print(torch.__version__, tinydep.where, torch.__file__)")
    assert re.fullmatch(r"2\.8\.0 lock /\S+/envs/\S+/kept/torch/__init__\.py", told)
    assert (box.root / "usr/local/lib/python3.11/dist-packages/torch/__init__.py").exists()


def test_of_the_image_only_torch_is_let_into_the_environment(box):
    for wheel in ("torch-2.8.0", "oldscipy-1.0"):
        box.install(f"{wheel}-py3-none-any.whl")
    assert box.setup().code == 0
    assert box.python("import importlib.util as u; print(u.find_spec('torch') and u.find_spec('oldscipy'))") == "None"


def test_an_image_that_has_everything_is_taken_as_it_is(box):
    for wheel in ("torch-2.8.0", "tinydep-1.2"):
        box.install(f"{wheel}-py3-none-any.whl")
    done = box.setup()
    assert done.code == 0, done
    assert box.index.asked == []
    assert box.python("import sys, torch; print(sys.executable, torch.__version__)") == "/usr/bin/python3 2.8.0"


def test_a_torch_that_is_older_than_what_is_asked_is_not_kept(box):
    box.install("torch-2.1.0-py3-none-any.whl")
    assert box.setup().code == 0
    assert box.python("import torch; print(torch.__version__)") == "2.13.0"


def test_a_torch_that_does_not_import_is_replaced(box):
    for wheel in ("torch-2.8.0", "tinydep-1.2"):
        box.install(f"{wheel}-py3-none-any.whl")
    box.write("usr/local/lib/python3.11/dist-packages/torch/__init__.py", "import libcudart_is_gone\n")
    done = box.setup()
    assert done.code == 0, done
    assert "torch can't be imported: No module named 'libcudart_is_gone'" in done.out
    assert box.python("import torch; print(torch.__version__)") == "2.13.0"


def test_a_torch_without_cuda_is_replaced_where_there_is_a_gpu(box):
    box.gpu()
    box.install("torch-2.7.0-py3-none-any.whl")
    done = box.setup()
    assert done.code == 0, done
    assert "torch 2.7.0 was built without CUDA" in done.out
    assert "cuda:0: NVIDIA A10, matmul right" in done.out


# ── what installs ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_installer_with_another_hash_is_never_run(box):
    lock = box.read("job/payload/installer.lock")
    box.write("job/payload/installer.lock", re.sub(r"sha256:\w+", "sha256:" + 64 * "0", lock))
    box.write("usr/local/bin/apt-get", "#!/bin/sh\nexit 100\n", 0o755)  # Debian's mirror is down
    done = box.setup()
    assert done.code == 1
    assert "sha256 is in installer.lock" in done.last
    assert not (box.root / "root/.gpurun/bin").exists()


def test_where_uv_can_not_be_had_debians_venv_package_and_pip_do(box):
    box.write("job/payload/installer.lock", "uv==0.0.1 --hash=sha256:0\n")
    box.offer_venv()
    done = box.setup()
    assert done.code == 0, done
    assert "installing the Debian package python3.11-venv" in done.out
    assert box.python("import torch, tinydep; print(torch.__version__, tinydep.where)") == "2.13.0 lock"


def test_pips_settings_hold_and_a_folder_of_wheels_will_do(box):
    box.write("wheels/.keep", "")
    for path in box.index.folder.glob("*.whl"):
        os.link(path, box.root / "wheels" / path.name)
    done = box.setup(UV_DEFAULT_INDEX="", PIP_NO_INDEX="1", PIP_FIND_LINKS="/wheels")
    assert done.code == 0, done
    assert box.python("import torch, tinydep; print(torch.__version__, tinydep.where)") == "2.13.0 lock"
    assert box.index.asked == []


def test_pips_index_is_the_one_that_is_asked(box):
    assert box.setup(UV_DEFAULT_INDEX="", PIP_INDEX_URL=box.index.url).code == 0
    assert {"/simple/uv/", "/simple/torch/", "/simple/tinydep/"} <= set(box.index.asked)


def test_a_package_that_can_not_be_had_is_named_in_the_last_line(box):
    box.write("job/payload/requirements.lock", "tinydep==1.2\nnosuchdep==1\ntorch==2.13.0\n")
    done = box.setup()
    assert done.code == 1
    assert re.match(r"setup: the packages can't be installed: .*nosuchdep", done.last)


def test_killed_in_the_middle_it_is_made_anew(box):
    box.index.held.add("/files/tinydep-1.2-py3-none-any.whl")
    process = box.start()
    end = time.monotonic() + 60
    while "/files/tinydep-1.2-py3-none-any.whl" not in box.index.asked:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (box.root / "job/env").exists()
    box.index.held.clear()
    assert box.setup().code == 0
    assert box.python("import torch, tinydep; print(torch.__version__, tinydep.where)") == "2.13.0 lock"


def test_cloud_init_is_waited_for_before_anything_is_looked_at(box):
    script = '#!/bin/sh\n[ "$2" != --wait ] || { sleep 0.3; echo booted >/etc/booted; }\n'
    box.write("usr/bin/cloud-init", script, 0o755)
    box.write("usr/local/bin/nvidia-smi", "#!/bin/sh\ncat /etc/booted && exit 9\n", 0o755)
    done = box.setup(GPURUN_GPUS="1")
    assert (done.code, done.last) == (10, "no GPU: booted")


# ── is the machine sound ──────────────────────────────────────────────────────────────────────────────────────────


def image_with_gpus(box, **gpu) -> None:
    for wheel in ("torch-2.8.0", "tinydep-1.2"):
        box.install(f"{wheel}-py3-none-any.whl")
    box.gpu(**gpu)


def test_every_gpu_that_is_listed_computes_before_the_setup_is_done(box):
    image_with_gpus(box, count=2)
    done = box.setup(GPURUN_GPUS="2")
    assert done.code == 0, done
    assert [line[:6] for line in done.out.splitlines() if "matmul right" in line] == ["cuda:0", "cuda:1"]


@pytest.mark.parametrize(
    ("error", "signature"),
    [
        (ERROR_802, "CUDA error 802: system not yet initialized"),
        (TOO_OLD, "driver 525 too old for CUDA 12"),
        (
            "CUDA error: uncorrectable ECC error\nCUDA kernel errors might be late",
            "CUDA error: uncorrectable ECC error",
        ),
        ("GPU 0000:07:00.0 at 0x7f3a fell off, see /tmp/x.log, process 4711", "GPU … at … fell off, see …, process …"),
    ],
    ids=["802", "driver", "ecc", "addresses"],
)
def test_a_gpu_that_does_not_compute_is_a_broken_machine_with_its_signature(box, error, signature):
    image_with_gpus(box, driver="525.147.05", error=error)
    done = box.setup(GPURUN_GPUS="1")
    assert (done.code, done.last) == (10, signature)
    assert not (box.root / "job/env").exists()


def test_a_machine_with_fewer_gpus_than_were_rented_is_broken(box):
    image_with_gpus(box)
    done = box.setup(GPURUN_GPUS="8")
    assert (done.code, done.last) == (10, "the offer has 8 GPUs, nvidia-smi lists 1")


def test_a_machine_without_the_gpu_that_was_rented_is_broken(box):
    done = box.setup(GPURUN_GPUS="1")
    assert (done.code, done.last) == (10, "no GPU: nvidia-smi is not there")
    assert box.index.asked == []


def test_an_nvidia_smi_that_hangs_is_a_broken_machine(box):
    box.write("usr/local/bin/nvidia-smi", "#!/bin/sh\nexec sleep 1000\n", 0o755)
    script = box.read("job/payload/setup.sh")
    assert "smi_seconds=120" in script
    box.write("job/payload/setup.sh", script.replace("smi_seconds=120", "smi_seconds=1"))
    done = box.setup(GPURUN_GPUS="1")
    assert (done.code, done.last) == (10, "no GPU: nvidia-smi hung")


def test_a_driver_that_no_torch_can_use_costs_no_download_of_one(box):
    box.gpu(driver="470.57.02")
    done = box.setup()
    assert (done.code, done.last) == (10, "driver 470 too old for CUDA 12")
    assert [path for path in box.index.asked if path.startswith("/files/torch")] == []


def test_what_the_driver_itself_refuses_is_known_before_anything_is_downloaded(box):
    box.gpu()
    box.driver("return 802;")
    done = box.setup()
    assert (done.code, done.last) == (10, "CUDA error 802: system not yet initialized")
    assert box.index.asked == []


def test_a_driver_that_is_not_ready_yet_is_asked_once_more(box):
    image_with_gpus(box)
    box.driver('if (access("/etc/inits", 0)) { creat("/etc/inits", 420); return 802; } return 0;')
    done = box.setup()
    assert done.code == 0, done
    assert "CUDA error 802: system not yet initialized; once more" in done.out
