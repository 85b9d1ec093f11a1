"""Tiny random models of 80 architectures that transformers knows, each as its own config makes it.

Sizes are those of `conftest.SIZES`; what a family names otherwise, or needs besides, is said here. Embeddings are not
tied: where they are, a random model says the same first token to all prompts.
"""

import copy
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

VOCABULARY_SIZE = 261

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 256,
    "eos_token_id": 257,
    "bos_token_id": 257,
    "tie_word_embeddings": False,
    # Larger than the default 0.02, so that an untrained model's blocks do something that can be measured.
    "initializer_range": 0.15,
}
NO_HEAD_DIM = {key: value for key, value in SIZES.items() if key != "head_dim"}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
LATENT = {  # DeepSeek's attention and experts
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
MAMBA = {"state_size": 8, "conv_kernel": 4, "expand": 2, "time_step_rank": 4}
MAMBA2 = {"mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_n_heads": 8, "mamba_d_head": 8}
MAMBA2 |= {"mamba_n_groups": 1, "mamba_chunk_size": 16}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,  # as many as the text part has
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}
QWEN_VISION = {"depth": 4, "hidden_size": 32, "embed_dim": 32, "intermediate_size": 48, "num_heads": 4}
QWEN_VISION |= {"patch_size": 8, "out_hidden_size": 32, "fullatt_block_indexes": [1], "deepstack_visual_indexes": [1]}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
MROPE = ROPE | {"mrope_section": [1, 1, 2]}
TOKENS = {"image_token_id": 258, "video_token_id": 259, "vision_start_token_id": 260, "vision_end_token_id": 260}


def hybrid(*kinds: str) -> dict[str, Any]:
    """Kinds of the four layers."""
    return {"layer_types": list(kinds)}


LINEAR = hybrid("linear_attention", "full_attention", "linear_attention", "full_attention")
QWEN_LINEAR = {
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
} | LINEAR

SHARED = hybrid("sliding_attention", "full_attention", "sliding_attention", "full_attention")
LLAMA4 = LOCAL_EXPERTS | {"intermediate_size_mlp": 48, "interleave_moe_layer_step": 2}
LLAMA4_VISION = {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32}
GEMMA4 = {
    "sliding_window": 16,
    "num_kv_shared_layers": 0,
    "global_head_dim": 8,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCABULARY_SIZE,
}
GEMMA4_VISION = VISION | {"num_key_value_heads": 4, "head_dim": 8, "position_embedding_size": 64}
GEMMA3N = GEMMA4 | {"num_kv_shared_layers": 2, "laurel_rank": 8, "altup_num_inputs": 2, "intermediate_size": [48] * 4}
GEMMA3N |= {"activation_sparsity_pattern": [0.0] * 4}
PIXTRAL = VISION | {"model_type": "pixtral", "head_dim": 8}
PHI4_AUDIO = {"hidden_size": 32, "intermediate_size": 48, "num_blocks": 1, "num_attention_heads": 4}
PHI4_AUDIO |= {"ext_pw_out_channel": 32, "depthwise_separable_out_channel": 32, "nemo_conv_channels": 32}
DBRX = {"d_model": 32, "n_heads": 4, "n_layers": 4, "max_seq_len": 256, "head_dim": None, "hidden_size": None}
DBRX |= {"num_attention_heads": None, "num_hidden_layers": None, "num_key_value_heads": None}
DBRX |= {"max_position_embeddings": None, "intermediate_size": None}
DBRX |= {"attn_config": {"kv_n_heads": 2}, "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2}}
DBRX["attn_config"] |= {"rope_theta": 10000.0, "clip_qkv": 8.0}
DBRX["ffn_config"]["hidden_size"] = 32
ZAMBA2 = {
    **{"layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "mamba_d_state": 8, "n_mamba_heads": 8},
    **{"chunk_size": 16, "num_key_value_heads": 4, "use_mem_rope": True, "adapter_rank": 8},
    **{"attention_head_dim": 16, "head_dim": None},
}
NEMOTRON_H = {
    **{"layers_block_type": ["mamba", "moe", "attention", "moe"], "num_hidden_layers": None, "ssm_state_size": 8},
    **{"mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 1, "chunk_size": 16, "n_routed_experts": 4},
    **{"moe_intermediate_size": 24, "moe_shared_expert_intermediate_size": 24, "num_experts_per_tok": 2},
}
JAMBA = {"num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 2, "attn_layer_offset": 1}
JAMBA |= {"mamba_d_state": 8, "mamba_dt_rank": 4, "head_dim": None, "expert_layer_period": 2, "expert_layer_offset": 1}


def inside(model_type: str, text: dict[str, Any], vision: dict[str, Any]) -> dict[str, Any]:
    """A wrapper's own settings: those of its text part, and of its vision part."""
    settings: dict[str, Any] = dict.fromkeys(SIZES)
    settings |= {"text_config": SIZES | {"model_type": model_type} | text, "vision_config": vision}
    return settings | {"tie_word_embeddings": False}


PLAIN = """llama mistral ministral ministral3 qwen2 qwen3 gemma phi phi3 olmo olmo2 stablelm cohere granite glm glm4
    nemotron smollm3 starcoder2 seed_oss apertus ernie4_5 hunyuan_v1_dense gpt_neox gpt2 gpt_bigcode bloom"""

# Name -> (model_type, what differs from SIZES); None leaves a key out.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in PLAIN.split()},
    "gemma2": ("gemma2", {"sliding_window": 16}),
    "gemma3_text": ("gemma3_text", {"sliding_window": 16}),
    "gemma4_text": ("gemma4_text", GEMMA4),
    "gemma4": (
        "gemma4",
        inside("gemma4_text", GEMMA4, GEMMA4_VISION | {"model_type": "gemma4_vision"}) | {"audio_config": None},
    ),
    "phi4_multimodal": (
        "phi4_multimodal",
        {"vision_config": VISION, "audio_config": PHI4_AUDIO, "original_max_position_embeddings": 256},
    ),
    "opt": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "olmo3": ("olmo3", {"sliding_window": 16}),
    "cohere2": ("cohere2", {"sliding_window": 16}),
    "gpt_oss": ("gpt_oss", LOCAL_EXPERTS | {"sliding_window": 16}),
    "llama4_text": ("llama4_text", LLAMA4),
    "exaone4": ("exaone4", {"sliding_window": 16}),
    "dbrx": ("dbrx", DBRX),
    "mixtral": ("mixtral", LOCAL_EXPERTS),
    "qwen2_moe": ("qwen2_moe", EXPERTS | {"shared_expert_intermediate_size": 24}),
    "qwen3_moe": ("qwen3_moe", EXPERTS),
    "olmoe": ("olmoe", EXPERTS),
    "granitemoe": ("granitemoe", LOCAL_EXPERTS),
    "phimoe": ("phimoe", LOCAL_EXPERTS),
    "deepseek_v2": ("deepseek_v2", LATENT),
    "minimax_m2": ("minimax_m2", LOCAL_EXPERTS | {"rotary_dim": 8}),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", {"num_experts": 4, "moe_topk": 2}),
    "ernie4_5_moe": ("ernie4_5_moe", {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 24}),
    "deepseek_v3": ("deepseek_v3", LATENT),
    "glm4_moe": ("glm4_moe", {k: v for k, v in LATENT.items() if "lora" not in k and "nope" not in k}),
    "gemma3": ("gemma3", inside("gemma3_text", {"sliding_window": 16}, VISION) | {"mm_tokens_per_image": 1}),
    "llama4": ("llama4", inside("llama4_text", LLAMA4, VISION | LLAMA4_VISION)),
    "qwen2_vl": ("qwen2_vl", inside("qwen2_vl_text", {"rope_parameters": MROPE}, QWEN_VISION) | TOKENS),
    "qwen2_5_vl": ("qwen2_5_vl", inside("qwen2_5_vl_text", {"rope_parameters": MROPE}, QWEN_VISION) | TOKENS),
    "qwen3_vl": ("qwen3_vl", inside("qwen3_vl_text", {"rope_parameters": MROPE}, QWEN_VISION) | TOKENS),
    "mistral3": ("mistral3", inside("mistral", {}, PIXTRAL) | {"image_token_index": 258}),
    "llava": ("llava", inside("llama", {}, VISION | {"model_type": "clip_vision_model"}) | {"image_token_index": 258}),
    "gptj": ("gptj", {"rotary_dim": 4}),
    "gpt_neo": ("gpt_neo", {"attention_types": [[["global", "local"], 2]], "window_size": 16}),
    "mpt": ("mpt", {"expansion_ratio": 2, "max_seq_len": 256}),
    "falcon": ("falcon", {"alibi": False, "head_dim": None}),
    "falcon_h1": ("falcon_h1", MAMBA2 | {"mamba_d_ssm": 64}),
    "bamba": ("bamba", MAMBA2 | {"attn_layer_indices": [1, 3]}),
    "gemma3n_text": ("gemma3n_text", GEMMA3N),
    "qwen3_5_text": ("qwen3_5_text", QWEN_LINEAR),
    "lfm2": ("lfm2", hybrid("conv", "full_attention", "conv", "full_attention") | {"block_ff_dim": 48}),
    "mamba": ("mamba", MAMBA),
    "falcon_mamba": ("falcon_mamba", MAMBA),
    "zamba2": ("zamba2", ZAMBA2),
    "gemma4_shared": ("gemma4_text", GEMMA4 | {"num_kv_shared_layers": 2} | SHARED),
    "qwen3_next": ("qwen3_next", EXPERTS | QWEN_LINEAR | {"shared_expert_intermediate_size": 24}),
    "qwen3_5_moe": ("qwen3_5_moe_text", EXPERTS | QWEN_LINEAR | {"shared_expert_intermediate_size": 24}),
    "granitemoehybrid": (
        "granitemoehybrid",
        LOCAL_EXPERTS | MAMBA2 | hybrid("mamba", "attention", "mamba", "attention") | {"shared_intermediate_size": 24},
    ),
    "nemotron_h": ("nemotron_h", NEMOTRON_H),
    "jamba": ("jamba", JAMBA),
    "qwen3_5": ("qwen3_5", inside("qwen3_5_text", QWEN_LINEAR, QWEN_VISION) | TOKENS),
    "minimax": ("minimax", LOCAL_EXPERTS | {"block_size": 16} | LINEAR),
    "mamba2": ("mamba2", {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 16}),
    "recurrent_gemma": ("recurrent_gemma", {"attention_window_size": 16, "block_types": ["recurrent", "attention"]}),
}
assert len(FAMILIES) == 80, len(FAMILIES)


def make_family(name: str) -> PreTrainedModel:
    """The model `name` with random weights, in float32."""
    model_type, own = FAMILIES[name]
    sizes = {key: value for key, value in (SIZES | copy.deepcopy(own)).items() if value is not None}
    config = AutoConfig.for_model(model_type, **sizes)
    wrapped = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    kind = AutoModelForImageTextToText if wrapped else AutoModelForCausalLM
    torch.manual_seed(0)
    return kind.from_config(config, dtype=torch.float32).eval()


# One of each kind: what runs quickly, and yet differs from the others in what it is made of.
QUICK = {"llama", "gemma4_text", "gpt2", "mixtral", "deepseek_v3", "gemma3", "qwen2_vl", "falcon", "mamba2"}
QUICK |= {"minimax", "zamba2", "qwen3_next", "recurrent_gemma", "gemma3n_text", "gemma4_shared", "gpt_oss"}
QUICK |= {*list(FAMILIES)[::3]}
