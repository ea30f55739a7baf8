"""What TRL, transformers, peft and datasets took away or renamed, one row each. Data.

Each was looked up in the published wheels: `last` is a version that still had it, `gone` one that had not, so that a
script that pins an older version is left in peace. A test holds the rows to the libraries of constraints.txt.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One argument of a call, or a name of a package where `argument` is empty."""

    place: str  # trl.SFTTrainer; *.from_pretrained
    argument: str
    fix: str
    last: str  # "trl 0.15.2"
    gone: str  # "trl 0.16.1"


ARGUMENTS = "transformers.TrainingArguments"  # and all that are made from it
TRAINER = "transformers.Trainer"
SFT, DPO = "trl.SFTTrainer", "trl.DPOTrainer"
_V5 = ("transformers 4.57.6", "transformers 5.0.0")
_TRL13 = ("trl 0.12.2", "trl 0.13.0")
_TRL29 = ("trl 0.28.0", "trl 0.29.1")
_OLD_TRAINERS = "pin trl<0.29 and transformers<5, or use SFT, DPO, KTO, GRPO, RLOO or Reward"

KEYWORDS = (
    # from_pretrained: what was handed down to the model's own constructor is no argument of it any more
    Row("*.from_pretrained", "load_in_4bit", "quantization_config=BitsAndBytesConfig(load_in_4bit=True)", *_V5),
    Row("*.from_pretrained", "load_in_8bit", "quantization_config=BitsAndBytesConfig(load_in_8bit=True)", *_V5),
    Row("*.from_pretrained", "use_auth_token", "token=", *_V5),
    Row("datasets.load_dataset", "use_auth_token", "token=", "datasets 2.21.0", "datasets 3.0.0"),
    # SFTTrainer: what to do with the data went into SFTConfig
    Row(SFT, "dataset_text_field", "SFTConfig(dataset_text_field=…)", *_TRL13),
    Row(SFT, "max_seq_length", "SFTConfig(max_length=…)", *_TRL13),
    Row(SFT, "packing", "SFTConfig(packing=…)", *_TRL13),
    Row(SFT, "dataset_num_proc", "SFTConfig(dataset_num_proc=…)", *_TRL13),
    Row(SFT, "dataset_kwargs", "SFTConfig(dataset_kwargs=…)", *_TRL13),
    Row(SFT, "model_init_kwargs", "SFTConfig(model_init_kwargs=…)", *_TRL13),
    Row(SFT, "eval_packing", "SFTConfig(eval_packing=…)", *_TRL13),
    Row(SFT, "neftune_noise_alpha", "SFTConfig(neftune_noise_alpha=…)", *_TRL13),
    Row(SFT, "dataset_batch_size", "drop it", *_TRL13),
    Row(SFT, "num_of_sequences", "drop it", *_TRL13),
    Row(SFT, "chars_per_token", "drop it", *_TRL13),
    Row(SFT, "infinite", "drop it; max_steps= in SFTConfig", *_TRL13),
    Row("trl.SFTConfig", "max_seq_length", "max_length=", "trl 0.19.1", "trl 0.20.0"),
    Row("trl.SFTConfig", "dataset_batch_size", "drop it", "trl 0.17.0", "trl 0.19.1"),
    Row("trl.SFTConfig", "num_of_sequences", "drop it", "trl 0.17.0", "trl 0.19.1"),
    Row("trl.SFTConfig", "chars_per_token", "drop it", "trl 0.17.0", "trl 0.19.1"),
    Row("trl.SFTConfig", "use_liger", "use_liger_kernel=", "trl 0.17.0", "trl 0.19.1"),
    # DPO and its kin, the same way
    Row(DPO, "beta", "DPOConfig(beta=…)", *_TRL13),
    Row(DPO, "loss_type", "DPOConfig(loss_type=…)", *_TRL13),
    Row(DPO, "max_length", "DPOConfig(max_length=…)", *_TRL13),
    Row(DPO, "max_prompt_length", "drop it; DPOConfig(max_length=…) cuts the whole", *_TRL13),
    Row(DPO, "max_target_length", "drop it; DPOConfig(max_length=…) cuts the whole", *_TRL13),
    Row(DPO, "label_pad_token_id", "drop it", *_TRL13),
    Row(DPO, "precompute_ref_log_probs", "DPOConfig(precompute_ref_log_probs=…)", *_TRL13),
    Row(DPO, "generate_during_eval", "drop it", *_TRL13),
    Row("trl.DPOConfig", "max_prompt_length", "drop it; max_length= cuts the whole", *_TRL29),
    Row("trl.DPOConfig", "max_completion_length", "drop it; max_length= cuts the whole", *_TRL29),
    Row("trl.DPOConfig", "generate_during_eval", "drop it", *_TRL29),
    Row("trl.DPOConfig", "label_pad_token_id", "drop it", *_TRL29),
    Row("trl.DPOConfig", "rpo_alpha", 'loss_type=["sigmoid", "sft"] with loss_weights=', *_TRL29),
    Row("trl.GRPOConfig", "max_prompt_length", "drop it, and cut the prompts yourself", "trl 0.27.2", "trl 0.28.0"),
    # every Trainer
    Row("trl.*Trainer", "tokenizer", "processing_class=", "trl 0.15.2", "trl 0.16.1"),
    Row(TRAINER, "tokenizer", "processing_class=", *_V5),
    # TrainingArguments, and all configs of TRL
    Row(ARGUMENTS, "evaluation_strategy", "eval_strategy=", "transformers 4.46.3", "transformers 4.57.6"),
    Row(
        ARGUMENTS,
        "warmup_ratio",
        "warmup_steps=0.03 (below 1 it is a share)",
        "transformers 5.5.4",
        "transformers 5.16.1",
    ),
    Row(ARGUMENTS, "logging_dir", "the variable TENSORBOARD_LOGGING_DIR", "transformers 5.0.0", "transformers 5.16.1"),
    Row(ARGUMENTS, "overwrite_output_dir", "drop it", *_V5),
    Row(ARGUMENTS, "save_safetensors", "drop it: there is no other format", *_V5),
    Row(ARGUMENTS, "no_cuda", "use_cpu=True", *_V5),
    Row(ARGUMENTS, "use_mps_device", "drop it", *_V5),
    Row(
        *(ARGUMENTS, "group_by_length", 'train_sampling_strategy="group_by_length"'),
        *("transformers 5.0.0", "transformers 5.2.0"),
    ),
    Row(ARGUMENTS, "per_gpu_train_batch_size", "per_device_train_batch_size=", *_V5),
    Row(ARGUMENTS, "per_gpu_eval_batch_size", "per_device_eval_batch_size=", *_V5),
    Row(ARGUMENTS, "half_precision_backend", "drop it", *_V5),
    Row(ARGUMENTS, "fp16_backend", "drop it", *_V5),
    Row(ARGUMENTS, "fp16_opt_level", "drop it", *_V5),
    Row(ARGUMENTS, "push_to_hub_token", "hub_token=, better the variable HF_TOKEN", *_V5),
    Row(ARGUMENTS, "push_to_hub_model_id", "hub_model_id=", *_V5),
    Row(ARGUMENTS, "push_to_hub_organization", "hub_model_id=organisation/name", *_V5),
    Row(ARGUMENTS, "include_tokens_per_second", 'include_num_input_tokens_seen="all"', *_V5),
    Row(ARGUMENTS, "include_inputs_for_metrics", 'include_for_metrics=["inputs"]', *_V5),
    Row(ARGUMENTS, "jit_mode_eval", "drop it", *_V5),
    Row(ARGUMENTS, "past_index", "drop it", *_V5),
    Row(ARGUMENTS, "torchdynamo", "torch_compile_backend=", *_V5),
    Row(ARGUMENTS, "fsdp_min_num_params", 'fsdp_config={"min_num_params": …}', *_V5),
    Row(ARGUMENTS, "fsdp_transformer_layer_cls_to_wrap", 'fsdp_config={"transformer_layer_cls_to_wrap": …}', *_V5),
    Row(ARGUMENTS, "tpu_num_cores", "drop it", *_V5),
    Row(ARGUMENTS, "ray_scope", "drop it", *_V5),
    Row(ARGUMENTS, "use_ipex", "drop it", "transformers 4.46.3", "transformers 4.57.6"),
    Row(
        *(ARGUMENTS, "dispatch_batches", 'accelerator_config={"dispatch_batches": …}'),
        *("transformers 4.46.3", "transformers 4.57.6"),
    ),
    Row(
        *(ARGUMENTS, "split_batches", 'accelerator_config={"split_batches": …}'),
        *("transformers 4.46.3", "transformers 4.57.6"),
    ),
)

NAMES = (
    Row("peft.prepare_model_for_int8_training", "", "prepare_model_for_kbit_training", "peft 0.6.2", "peft 0.10.0"),
    Row("transformers.AdamW", "", "torch.optim.AdamW", "transformers 4.46.3", "transformers 4.57.6"),
    Row("transformers.TextDataset", "", "datasets.load_dataset", *_V5),
    Row("transformers.LineByLineTextDataset", "", "datasets.load_dataset", *_V5),
    Row(
        "datasets.load_metric",
        "",
        "the package evaluate, or a function of your own",
        "datasets 2.21.0",
        "datasets 3.0.0",
    ),
    Row(
        *("trl.DataCollatorForCompletionOnlyLM", "", "SFTConfig(completion_only_loss=True) on prompt and completion"),
        *("trl 0.19.1", "trl 0.20.0"),
    ),
    Row("trl.setup_chat_format", "", "clone_chat_template", "trl 0.24.0", "trl 0.26.2"),
    Row("trl.get_kbit_device_map", "", 'device_map={"": 0}', "trl 1.5.1", "trl 1.16.0"),
    Row("trl.PPOTrainer", "", _OLD_TRAINERS, *_TRL29),
    Row("trl.PPOConfig", "", _OLD_TRAINERS, *_TRL29),
    Row("trl.ORPOTrainer", "", _OLD_TRAINERS, *_TRL29),
    Row("trl.ORPOConfig", "", _OLD_TRAINERS, *_TRL29),
    Row("trl.CPOTrainer", "", _OLD_TRAINERS, *_TRL29),
    Row("trl.BCOTrainer", "", _OLD_TRAINERS, *_TRL29),
    Row("trl.GKDTrainer", "", "DistillationTrainer", *_TRL29),
    Row("trl.OnlineDPOTrainer", "", _OLD_TRAINERS, *_TRL29),
    Row("trl.PRMTrainer", "", _OLD_TRAINERS, *_TRL29),
    Row("trl.AutoModelForCausalLMWithValueHead", "", _OLD_TRAINERS, *_TRL29),
)

# These still work, and will not for ever; or they work on some machines only.
STILL = (
    Row("*.from_pretrained", "torch_dtype", "dtype= is its name now", "", ""),
    Row(ARGUMENTS, "gradient_checkpointing", "activation_checkpointing= from transformers 5.23 on", "", ""),
)
