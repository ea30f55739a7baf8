"""The memory model beside real models on a CPU: weights, gradients and states to the byte, activations near."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from orchestrator.estimate import ask, kept, layers, memory, models
from orchestrator.estimate.layers import adapter_parameters
from orchestrator.estimate.work import Kernels, Loss, Work

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning"),  # PEFT asks by an old name
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),  # and mends it
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys:RuntimeWarning"),  # its own
]

ROWS, LENGTH, RANK = 2, 96, 4
SMALL = {
    "num_hidden_layers": 3,
    "hidden_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 320,
    "vocab_size": 512,
    "max_position_embeddings": 256,
    "attention_dropout": 0.0,
    "pad_token_id": 0,
}
GPT2 = {
    "attn_pdrop": 0.0,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "n_layer": 3,
    "n_embd": 128,
    "n_head": 4,
    "n_positions": 256,
    "vocab_size": 512,
}
EXPERTS = {"num_experts_per_tok": 2}
OTHERS = {
    "gemma2": {"head_dim": 32, "query_pre_attn_scalar": 32},
    "gemma3_text": {"head_dim": 32},
    "phi": {},
    "phi3": {},
    "gpt_neox": {},
    "stablelm": {},
    "gpt2": {},
    "mixtral": {"num_local_experts": 4, **EXPERTS},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 96, **EXPERTS},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 32, **EXPERTS},
}
LLAMAS = ("llama", "mistral", "qwen2", "qwen3", "olmo2", "granite", "smollm3")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def built(kind="llama", dtype=torch.float32, attention="sdpa", **more):
    sizes = GPT2 if kind == "gpt2" else {**SMALL, **more}
    config = AutoConfig.for_model(kind, **sizes, attn_implementation=attention)
    return AutoModelForCausalLM.from_config(config).to(dtype).train(), models.from_config(config.to_dict(), kind)


def adapted(model, targets):
    found = get_peft_model(model, LoraConfig(r=RANK, target_modules=targets, task_type="CAUSAL_LM", lora_dropout=0.0))
    found.enable_input_require_grads()
    return found


def saved_bytes(model, body, *, autocast):
    """What autograd keeps of the layers' forward pass, each storage once; neither weights nor their short copies."""
    weights = {one.untyped_storage()._cdata for one in (*model.parameters(), *model.buffers())}
    found = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            found[storage._cdata] = (storage.nbytes(), tensor)  # held, so that no address is given out again
        return tensor

    ids = torch.randint(1, 500, (ROWS, LENGTH))
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), hooks:
        body(ids, use_cache=False)
    shapes = {tuple(one.shape) for one in model.parameters()} | {tuple(one.shape[::-1]) for one in model.parameters()}
    return sum(
        size for size, tensor in found.values() if tensor.is_floating_point() and tuple(tensor.shape) not in shapes
    )


def work_of(shape, **more):
    usual = {"sequence": LENGTH, "micro_batch": ROWS, "loss": Loss.LINEAR, "rank": RANK, "kernels": Kernels.HF}
    return Work(shape, **{**usual, **more})


def parameter_bytes(model, *, trained=None):
    return sum(
        one.numel() * one.element_size()
        for one in model.parameters()
        if trained is None or one.requires_grad is trained
    )


@pytest.mark.parametrize("kind", LLAMAS)
@pytest.mark.parametrize(
    ("dtype", "autocast"), [(torch.float32, True), (torch.float32, False), (torch.bfloat16, False)], ids=str
)
def test_activations_of_a_full_step_are_within_a_twentieth(kind, dtype, autocast):
    model, shape = built(kind, dtype)
    short = "bfloat16" if autocast or dtype is torch.bfloat16 else "float32"
    work = work_of(shape, master=dtype is torch.float32, autocast=autocast, short=short)
    assert kept.activations(work) == pytest.approx(saved_bytes(model, model.model, autocast=autocast), rel=0.05)


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_activations_of_every_other_kind_of_layer_are_within_a_twentieth(kind, dtype):
    attention = "sdpa" if layers.TRAITS.get(kind, layers.LLAMA).sdpa else "eager"
    model, shape = built(kind, dtype, attention, **OTHERS[kind])
    assert ask.attention(shape) == attention
    short = "bfloat16" if dtype is torch.bfloat16 else "float32"
    work = work_of(shape, master=dtype is torch.float32, autocast=False, short=short, attention=ask.attention(shape))
    body = getattr(model, model.base_model_prefix)
    assert kept.activations(work) == pytest.approx(saved_bytes(model, body, autocast=False), rel=0.05)


@pytest.mark.parametrize(
    "targets", [["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj", "o_proj"], "all-linear"], ids=str
)
@pytest.mark.parametrize(
    ("dtype", "autocast"), [(torch.bfloat16, True), (torch.bfloat16, False), (torch.float32, True)]
)
def test_activations_of_a_lora_step_are_within_a_twentieth(targets, dtype, autocast):
    model, shape = built("llama", dtype)
    model = adapted(model, targets)
    bits = 32 if dtype is torch.float32 else 16
    chosen = targets if isinstance(targets, str) else tuple(targets)
    work = work_of(shape, method="lora", targets=chosen, autocast=autocast, bits=bits)
    body = model.base_model.model.model
    assert kept.activations(work) == pytest.approx(saved_bytes(model, body, autocast=autocast), rel=0.05)


@pytest.mark.parametrize("kind", OTHERS)
def test_a_lora_step_on_every_other_kind_of_layer_is_within_a_twentieth_and_its_adapters_exact(kind):
    attention = "sdpa" if layers.TRAITS.get(kind, layers.LLAMA).sdpa else "eager"
    model, shape = built(kind, torch.bfloat16, attention, **OTHERS[kind])
    model = adapted(model, "all-linear")
    work = work_of(shape, method="lora", targets="all-linear", attention=ask.attention(shape))
    base = model.base_model.model
    body = getattr(base, base.base_model_prefix)
    assert adapter_parameters(work) == sum(one.numel() for one in model.parameters() if one.requires_grad)
    assert kept.activations(work) == pytest.approx(saved_bytes(model, body, autocast=True), rel=0.05)


def test_activations_of_a_step_on_four_bits_are_within_a_twentieth(tmp_path):
    # Not for 8 bits: on CPUs bitsandbytes multiplies another way, and keeps nothing of what the CUDA function keeps.
    model, shape = quantised(4, tmp_path)
    model = adapted(model, ["q_proj", "k_proj", "v_proj", "o_proj"])
    work = work_of(shape, method="lora", bits=4, targets=("q_proj", "k_proj", "v_proj", "o_proj"))
    body = model.base_model.model.model
    assert kept.activations(work) == pytest.approx(saved_bytes(model, body, autocast=True), rel=0.05)


def quantised(bits, folder, kind="llama", **more):
    model, shape = built(kind, torch.bfloat16, **more)
    model.save_pretrained(folder)
    four = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    plan = four if bits == 4 else BitsAndBytesConfig(load_in_8bit=True)
    found = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=plan, device_map={"": "cpu"}, dtype=torch.bfloat16
    )
    return found.train(), shape


def test_checkpointing_keeps_only_what_stands_between_the_layers():
    model, shape = built("llama", torch.bfloat16)
    model.activation_checkpointing_enable({"use_reentrant": False})
    work = work_of(shape, master=False, autocast=False, checkpointing=True)
    assert kept.activations(work) == pytest.approx(saved_bytes(model, model.model, autocast=False), rel=0.05)


@pytest.mark.parametrize("kind", ["gpt_neox", "gpt2", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_gradients_and_states_of_a_full_step_are_exact(kind, dtype):
    model, shape = built(kind, dtype)
    short = "float32" if dtype is torch.float32 else "bfloat16"
    work = work_of(shape, master=dtype is torch.float32, autocast=False, short=short)
    stepped(model)
    held_to_bytes(model, work)


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "all-linear"], ids=str)
def test_weights_gradients_and_states_of_a_lora_step_are_exact(targets):
    model, shape = built("llama", torch.bfloat16)
    model = adapted(model, targets)
    chosen = targets if isinstance(targets, str) else tuple(targets)
    work = work_of(shape, method="lora", targets=chosen)
    stepped(model)
    assert parameter_bytes(model, trained=False) == memory.base_bytes(work)
    assert sum(one.numel() for one in model.parameters() if one.requires_grad) == adapter_parameters(work)
    held_to_bytes(model, work)


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_weights_with_their_scales_are_within_a_hundredth(bits, tmp_path):
    model, shape = quantised(bits, tmp_path)
    total = parameter_bytes(model)
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            scales = (state.absmax, state.state2.absmax)
            total += sum(one.numel() * one.element_size() for one in scales)
        rows = getattr(getattr(module, "weight", None), "SCB", None)
        total += 0 if rows is None else rows.numel() * rows.element_size()
    assert total == pytest.approx(memory.base_bytes(work_of(shape, method="lora", bits=bits)), rel=0.01)


def stepped(model):
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad])
    ids = torch.randint(1, 500, (1, 8))
    model(ids, labels=ids, use_cache=False).loss.backward()
    optimizer.step()
    model.states = [value for state in optimizer.state.values() for value in state.values() if value.numel() > 1]


def held_to_bytes(model, work):
    gradients = sum(one.grad.numel() * one.grad.element_size() for one in model.parameters() if one.grad is not None)
    step = next(moment for moment in memory.peak(work).moments if moment.name == "step")
    assert parameter_bytes(model) == step.parts["weights"] + step.parts["adapters"]
    assert gradients == step.parts["gradients"]
    assert sum(one.numel() * one.element_size() for one in model.states) == step.parts["optimizer"]


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_experts_in_one_tensor_are_not_quantised(kind, tmp_path):
    experts = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128}
    model, shape = quantised(4, tmp_path, kind, **experts)
    whole = sum(one.numel() for one in model.parameters() if one.dtype is not torch.uint8)
    assert shape.parameters - memory.quantised(work_of(shape, method="lora", bits=4)) == whole
