"""Config keys under which people keep the sizes of attention."""

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

SIZES = {"h": HEADS, "g": KEY_VALUE_HEADS, "k": HEAD_WIDTH}
