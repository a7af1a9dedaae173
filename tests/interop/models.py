"""Tiny models of every family, made by ``transformers`` itself, with all weights drawn so that none hides."""

from pathlib import Path

import torch
import transformers as hf

hf.logging.set_verbosity_error()
V = 37
LLAMA = dict(vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=32)  # fmt: skip
BERT = dict(vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=32)  # fmt: skip
BART = dict(vocab_size=V, d_model=16, encoder_ffn_dim=24, decoder_ffn_dim=24, encoder_layers=2, decoder_layers=3,
            encoder_attention_heads=4, decoder_attention_heads=4, max_position_embeddings=32)  # fmt: skip
DEEPSEEK = dict(LLAMA, num_key_value_heads=4, moe_intermediate_size=12, kv_lora_rank=8, qk_rope_head_dim=4,
                qk_nope_head_dim=6, v_head_dim=5, n_routed_experts=6, n_shared_experts=2, num_experts_per_tok=2,
                first_k_dense_replace=1)  # fmt: skip


def rope(kind: str, **more) -> dict:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 500.0, "factor": 4.0, **more}}


LLAMA3 = rope("llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
YARN = rope("yarn", original_max_position_embeddings=8, mscale=0.7, mscale_all_dim=1.2)

DECODERS = {
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=V, n_positions=32, n_embd=16, n_layer=2, n_head=4)),
    "gpt2-scaled": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(
        vocab_size=V, n_positions=32, n_embd=16, n_layer=2, n_head=4, n_inner=24, scale_attn_by_inverse_layer_idx=True,
        activation_function="relu")),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA)),
    "llama-3": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(
        **LLAMA, **LLAMA3, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, head_dim=8)),
    "llama-linear": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA, **rope("linear"))),
    "llama-dynamic": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA, **rope("dynamic"))),
    "llama-yarn": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(
        **LLAMA, **rope("yarn", original_max_position_embeddings=8))),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**LLAMA, sliding_window=4)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(
        **LLAMA, use_sliding_window=True, sliding_window=4, max_window_layers=1)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**LLAMA, head_dim=8, rms_norm_eps=1e-5)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(
        **LLAMA, head_dim=8, sliding_window=4, query_pre_attn_scalar=6, attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0)),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**LLAMA, num_local_experts=4)),
    "deepseek_v2": lambda: hf.DeepseekV2ForCausalLM(hf.DeepseekV2Config(
        **DEEPSEEK, q_lora_rank=6, routed_scaling_factor=1.5)),
    "deepseek_v2-groups": lambda: hf.DeepseekV2ForCausalLM(hf.DeepseekV2Config(
        **DEEPSEEK, q_lora_rank=6, topk_method="group_limited_greedy", n_group=3, topk_group=2)),
    "deepseek_v2-lite": lambda: hf.DeepseekV2ForCausalLM(hf.DeepseekV2Config(**DEEPSEEK, q_lora_rank=None, **YARN)),
    "deepseek_v3": lambda: hf.DeepseekV3ForCausalLM(hf.DeepseekV3Config(
        **DEEPSEEK, q_lora_rank=6, n_group=2, topk_group=1, **YARN)),
    "bloom": lambda: hf.BloomForCausalLM(hf.BloomConfig(vocab_size=V, hidden_size=24, n_layer=2, n_head=3)),
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(
        vocab_size=V, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32)),
    "gpt_neox-serial": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(
        vocab_size=V, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32, use_parallel_residual=False, attention_bias=False, hidden_act="gelu_fast")),
}  # fmt: skip
MODERN = dict(BERT, num_hidden_layers=4, local_attention=4, pad_token_id=0, bos_token_id=1, eos_token_id=2,
              cls_token_id=1, sep_token_id=2)  # fmt: skip
ENCODERS = {
    "bert": lambda: hf.BertForMaskedLM(hf.BertConfig(**BERT)),
    "bert-body": lambda: hf.BertModel(hf.BertConfig(**BERT, hidden_act="relu"), add_pooling_layer=False),
    "roberta": lambda: hf.RobertaForMaskedLM(hf.RobertaConfig(**BERT, type_vocab_size=1)),
    "distilbert": lambda: hf.DistilBertForMaskedLM(hf.DistilBertConfig(
        vocab_size=V, dim=16, hidden_dim=24, n_layers=2, n_heads=4, max_position_embeddings=32)),
    "modernbert": lambda: hf.ModernBertForMaskedLM(hf.ModernBertConfig(**MODERN)),
}  # fmt: skip
T5 = dict(vocab_size=V, d_model=16, d_ff=24, num_layers=3, num_decoder_layers=2, num_heads=4, d_kv=8,
          decoder_start_token_id=0, relative_attention_num_buckets=8, relative_attention_max_distance=12)  # fmt: skip
PAIRS = {
    "t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5)),
    "t5-v1.1": lambda: _untied(hf.T5ForConditionalGeneration(
        hf.T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False))),
    "bart": lambda: hf.BartForConditionalGeneration(hf.BartConfig(**BART, bos_token_id=0, eos_token_id=2)),
    "marian": lambda: hf.MarianMTModel(hf.MarianConfig(
        **BART, pad_token_id=36, decoder_start_token_id=36, scale_embedding=True, activation_function="swish")),
}  # fmt: skip


def _untied(model):
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    return model


def made(make, folder: Path):
    """A model whose every weight is drawn, and the folder that it wrote."""
    torch.manual_seed(0)
    model = make().eval()
    generator = torch.Generator().manual_seed(1)
    fixed = ("embed_positions",) if model.config.model_type == "marian" else ()
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("final_logits_bias") or name.endswith("e_score_correction_bias"):
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
            elif isinstance(value, torch.nn.Parameter) and not any(each in name for each in fixed):
                drawn = torch.randn(value.shape, generator=generator) * (0.3 if value.ndim > 1 else 0.2)
                value.copy_(drawn + (1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0))
    model.save_pretrained(folder)
    return model
