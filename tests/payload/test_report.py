"""report.py, device.py, settings.py and plain.py: what is said, chosen, read and reckoned."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from harness import PAYLOAD, parse
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(PAYLOAD))
import device
import plain
import report
import settings
import train_loop
import train_pretrain

from orchestrator import config as templates

A100 = device.Device(
    torch.device("cpu"), "NVIDIA A100-SXM4-80GB", (8, 0), torch.bfloat16, "sdpa", "adamw", tf32=True, peak_flops=312e12
)


@pytest.fixture
def cpu() -> device.Device:
    return device.choose({})


@pytest.fixture
def voice(cpu: device.Device, tmp_path: Path) -> report.Report:
    return report.Report(cpu, total_steps=100, log_every_steps=10, folder=tmp_path)


def said(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    return parse(capsys.readouterr().out)


# --- report


def test_a_line_is_due_at_the_first_the_last_and_every_nth_step(
    voice: report.Report, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in range(1, 101):
        voice.step(step, loss=1.0)
    assert [line["step"] for line in said(capsys) if "step" in line] == [1, *range(10, 101, 10)]


@pytest.mark.parametrize(("loss", "word"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "inf")])
def test_a_loss_that_is_not_finite_gets_its_line_and_ends_with_3(
    voice: report.Report, loss: float, word: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as left:
        voice.step(7, loss=loss)
    assert left.value.code == 3
    last = said(capsys)[-1]
    assert (last["step"], last["loss"]) == (7, word)
    assert json.loads((tmp_path / "summary.json").read_text())["metrics"]["loss"] == word


def test_counters_stages_and_metrics_survive_a_resume(voice: report.Report, cpu: device.Device, tmp_path: Path) -> None:
    voice.stage("train")
    voice.count(tokens=100, samples=4)
    voice.line(1, eval_loss=2.0)
    before = json.loads(json.dumps(voice.state()))
    again = report.Report(cpu, folder=tmp_path)
    again.restore(before)
    again.count(tokens=50, samples=2)
    assert (again.tokens, again.samples) == (150, 6)
    assert again.metrics == {"eval_loss": 2.0}
    assert again.train_seconds == before["train_seconds"]
    assert again.stage_seconds["train"] == before["stage_seconds"]["train"]


def test_an_unknown_device_has_utilisation_0_and_a_known_one_its_share(tmp_path: Path, cpu: device.Device) -> None:
    for gpu, share in ((cpu, 0), (A100, 0.5)):
        voice = report.Report(gpu, folder=tmp_path)
        voice.flops_per_token = 156e12
        assert voice._utilisation(tokens=10, samples=1, seconds=10.0) == share


def test_the_summary_says_what_its_memory_is_of(voice: report.Report, tmp_path: Path) -> None:
    voice.finish({"accuracy": 0.5})
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["peak_memory_of"] == "the process's resident set"
    assert 0.01 < summary["peak_memory_gib"] < 64
    assert summary["metrics"] == {"accuracy": 0.5}
    assert summary["versions"]["torch"] == torch.__version__
    assert not list(tmp_path.glob("*.partial"))


class Card:
    """As much of torch.cuda as the report reads: bytes by tensors, by the allocator, and free of 10 GiB."""

    def __init__(self, allocated: int, reserved: int, free: int) -> None:
        self.max_memory_allocated, self.max_memory_reserved = (lambda: allocated * 2**30), (lambda: reserved * 2**30)
        self.mem_get_info = lambda: (free * 2**30, 10 * 2**30)


def test_peaks_on_a_gpu_are_the_largest_of_each_figure_through_a_resume_too(
    voice: report.Report, cpu: device.Device, tmp_path: Path
) -> None:
    voice._look_at_gpu(Card(2, 3, 6))
    voice._look_at_gpu(Card(2, 4, 7))
    again = report.Report(cpu, folder=tmp_path)
    again._look_at_gpu(Card(1, 5, 5))
    again.restore(json.loads(json.dumps(voice.state())))
    again.micro_batch = 4
    again.finish()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["memory_gib"] == {"allocated": 2, "reserved": 5, "process": 5}
    assert summary["micro_batch"] == 4


# --- device


@pytest.mark.parametrize(
    ("capability", "dtype"), [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float16"), ((6, 1), "float32")]
)
def test_the_dtype_follows_the_capability(capability: tuple, dtype: str) -> None:
    assert device._dtype("auto", "cuda", capability)[0] == device.DTYPES[dtype]


@pytest.mark.parametrize(
    ("kind", "capability", "begun", "dtype"),
    [
        ("cuda", (9, 0), "float16", "float16"),
        ("cuda", (9, 0), "float32", "float32"),
        ("cuda", (7, 5), "bfloat16", "float16"),  # it can't
        ("cpu", (), "bfloat16", "bfloat16"),
        ("cpu", (), "float16", "float32"),  # its loss scaler wants CUDA
        ("cpu", (), "float8", "float32"),
    ],
)
def test_a_run_goes_on_in_the_dtype_that_it_began_in(kind: str, capability: tuple, begun: str, dtype: str) -> None:
    assert device._dtype("auto", kind, capability, begun)[0] == device.DTYPES[dtype]


def test_a_cpu_computes_in_float32_unless_the_config_says_otherwise() -> None:
    assert device.choose({}).dtype == torch.float32
    assert device.choose({"dtype": "bfloat16", "device": "cpu"}).dtype == torch.bfloat16


def test_each_choice_is_printed_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    device.choose({"optimizer": "adamw_8bit"})
    printed = capsys.readouterr().out
    for words in (
        "device: cpu",
        "dtype: float32, CPUs",
        "attention: sdpa, ",
        "optimizer: adamw_8bit, as the config says",
    ):
        assert words in printed


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("Tesla T4", 65),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 0),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 0),
        ("cpu", 0),
    ],
)
def test_a_peak_is_known_by_the_exact_name_or_not_at_all(name: str, tflops: float) -> None:
    assert device.peak_flops(name, torch.bfloat16) == tflops * 1e12


def test_flash_attention_without_its_package_or_card_falls_back_to_sdpa() -> None:
    assert device._attention("flash_attention_2", (7, 5))[0] == "sdpa"
    assert device._attention("flash_attention_2", (8, 0))[0] == "sdpa"
    assert device._attention("eager", (8, 0))[0] == "eager"


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "paged_adamw_8bit"])  # the last is not paged on a CPU
def test_every_optimizer_decays_matrices_only_and_learns(name: str) -> None:
    layer = torch.nn.Linear(4, 4)
    gpu = device.choose({"optimizer": name, "device": "cpu"})
    optimizer = device.make_optimizer(gpu, layer.parameters(), learning_rate=0.1, weight_decay=0.5)
    assert [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups] == [(1, 0.5), (1, 0.0)]
    before = layer.weight.detach().clone()
    layer(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, layer.weight)


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_only_memory_errors_are_memory_errors(error: Exception, answer: bool) -> None:  # noqa: FBT001
    assert device.is_out_of_memory(error) == answer


# --- settings


@pytest.mark.parametrize(("script", "model"), [(train_loop, templates.Loop), (train_pretrain, templates.Pretrain)])
def test_a_script_and_the_templates_have_the_same_keys_and_defaults(script: object, model: type) -> None:
    theirs = {name: field.default for name, field in model.model_fields.items() if name != "method"}
    ours = dict(script.DEFAULTS)
    assert theirs.keys() == ours.keys()
    for name, value in ours.items():
        assert value is settings.REQUIRED or value == theirs[name], name


def test_the_data_section_has_the_templates_keys_and_defaults() -> None:
    theirs = {name: field.default for name, field in templates.Data.model_fields.items() if name != "train"}
    assert {name: value for name, value in settings.DATA.items() if name != "train"} == theirs


def test_a_whole_template_is_read_by_its_training_part(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"name": "x", "training": {"method": "loop", "epochs": 3, "data": {"train": "a.csv"}}}))
    config = settings.read(path, "loop", train_loop.DEFAULTS)
    assert (config["epochs"], config["batch_size"], config["data"]["label_field"]) == (3, 64, "label")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "a config is an object"),
        ('{"batch_size": "8"}', "batch_size is '8'"),
        ('{"seed": true}', "seed is True"),
        ('{"data": {"train": "x", "evall": "y"}}', "data.evall; did you mean eval?"),
        ('{"data": {}}', "data.train is missing"),
    ],
)
def test_a_config_that_makes_no_sense_ends_with_2(
    tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SystemExit) as left:
        settings.read(tmp_path / "config.json", "loop", train_loop.DEFAULTS)
    assert left.value.code == 2
    assert words in capsys.readouterr().err


# --- the plain loops' arithmetic

LOOP = {**train_loop.DEFAULTS, "seed": 5}


@given(rows=st.integers(1, 300), batch=st.integers(1, 40), accumulation=st.integers(1, 3), seed=st.integers(0, 9))
def test_an_epoch_sees_every_row_once(rows: int, batch: int, accumulation: int, seed: int) -> None:
    config = {**LOOP, "batch_size": batch, "gradient_accumulation": accumulation, "epochs": 2, "seed": seed}
    per_epoch, total = plain.steps_of(rows, config)
    assert total == 2 * per_epoch
    for epoch in (0, 1):
        steps = range(1 + epoch * per_epoch, 1 + (epoch + 1) * per_epoch)
        seen = torch.cat([plain.rows_of(step, rows, config) for step in steps])
        assert sorted(seen.tolist()) == list(range(rows))


@given(total=st.integers(1, 200), warmup=st.floats(0, 0.9), shape=st.sampled_from(["linear", "cosine", "constant"]))
def test_the_rate_rises_to_its_peak_and_never_rises_after(total: int, warmup: float, shape: str) -> None:
    config = {**LOOP, "learning_rate": 1.0, "warmup": warmup, "schedule": shape}
    rates = [plain.learning_rate(step, total, config) for step in range(1, total + 1)]
    top = rates.index(max(rates))
    assert 0 < max(rates) <= 1.0 + 1e-12
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert all(later <= earlier + 1e-12 for earlier, later in zip(rates[top:], rates[top + 1 :], strict=False))
    assert min(rates) > 0


@given(rows=st.integers(1, 30), micro=st.integers(1, 30), fits=st.integers(1, 30))
def test_the_gradient_is_the_mean_over_the_batch_however_it_is_split(rows: int, micro: int, fits: int) -> None:
    x, weight = torch.arange(float(rows)) + 1, torch.nn.Parameter(torch.tensor(2.0))
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), torch.amp.GradScaler("cpu", enabled=False)

    def mean_loss(part: torch.Tensor) -> torch.Tensor:
        if len(part) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (x[part] * weight).mean()

    loss, left = plain.backward(torch.arange(rows), micro, mean_loss, scaler, optimizer)
    assert loss == pytest.approx((2 * x).mean().item(), rel=1e-5)
    assert weight.grad.item() == pytest.approx(x.mean().item(), rel=1e-5)
    assert left <= max(fits, 1) or rows <= fits
