"""Common config keys for the sizes of attention."""

HEADS = (
    "num_attention_heads", "n_head", "n_heads", "num_heads", "nhead", "nheads", "heads",
    "num_q_heads", "n_q_heads", "num_query_heads", "attention_heads", "n_attention_heads",
    "n_attn_heads", "num_attn_heads", "encoder_attention_heads", "decoder_attention_heads",
    "attn_heads", "att_heads", "head_num", "n_layer_heads", "mha_heads",
)  # fmt: skip
KEY_VALUE_HEADS = (
    "num_key_value_heads", "n_kv_heads", "num_kv_heads", "n_kv_head", "n_head_kv", "kv_heads",
    "num_query_groups", "n_query_groups", "multi_query_group_num", "num_kv_groups",
)  # fmt: skip
HEAD_WIDTH = ("head_dim", "d_head", "dim_head", "head_size", "d_kv", "kv_channels", "d_k")
WIDTH = (
    "d_model", "hidden_size", "n_embd", "embed_dim", "embedding_dim", "model_dim", "dim_model",
    "n_embed", "emb_dim", "d_embed", "dim", "model_width", "hidden_dim",
)  # fmt: skip
PARALLEL = (
    "use_parallel_residual", "parallel_residual", "parallel_attn_mlp", "parallel_attn",
    "parallel_block", "parallel_blocks", "parallel",
)  # fmt: skip
"""Config keys that say whether attention and MLP of a layer are parallel."""

SIZES = {"h": HEADS, "g": KEY_VALUE_HEADS, "k": HEAD_WIDTH}
"""Config keys by axis, without the stream's width, whose key may mean something else."""
