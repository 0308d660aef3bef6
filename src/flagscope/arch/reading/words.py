"""Common names for the maps of attention and MLPs, and for lists of modules."""

from __future__ import annotations

import re

_PART = {
    "q": r"q|qs|query|queries",
    "k": r"k|ks|key|keys",
    "v": r"v|vs|val|value|values",
}
_BEFORE = r"(?:w|to|fc|lin|linear|proj|project|attn|att|self|in|c|dense|mat)"
_AFTER = (
    r"(?:proj|projection|project|linear|lin|net|layer|dense|transform|mat|matrix|map|w|fc|embed|s)"
)
# W_Q, wq, Wq, w_qs, q_proj, query, queries, q_linear, linear_q, to_q, q_lin, query_proj, fc_q …
_ROLE = {
    role: re.compile(rf"(?:{_BEFORE}_?)*(?:{part})(?:_?{_AFTER})*") for role, part in _PART.items()
}
_OUTPUT = re.compile(
    rf"(?:{_BEFORE}_?|resid_?|final_?|attention_?)*(?:o|out|output|outputs)(?:_?{_AFTER})*"
    r"|(?:c_?|attn_?|final_?|last_?|head_?|resid_?|post_?)?(?:proj|projection|dense|linear)"
    r"|(?:fc|fc_?concat|concat|combine|merge|mix|unify_?heads?|w_?concat|recombine|collect)"
)
_FUSED = re.compile(rf"(?:{_BEFORE}_?)*(?:qkv|c_?attn|in_?proj|q_?k_?v)(?:s)?(?:_?{_AFTER})*")
_NOT_OUTPUT = re.compile(r"pos|rel|bias|gate|norm|rope|rot|emb|scale|lora|mask|router")

UP = re.compile(
    r"(?:(?:c|w|fc|mlp|ffn|ff|dense|lin|linear|proj)_?)?"
    r"(?:up|in|fc|wi|w_?i|wi_1|h_?to_?4h|inner|expand|intermediate|1|fc_?1|w_?1|lin_?1|linear_?1|0)"
    r"(?:_?(?:proj|projection|linear|lin|layer|dense))?"
)
DOWN = re.compile(
    r"(?:(?:c|w|fc|mlp|ffn|ff|dense|lin|linear|proj)_?)?"
    r"(?:down|out|proj|wo|w_?o|4h_?to_?h|outer|contract|output|2|fc_?2|w_?2|lin_?2|linear_?2)"
    r"(?:_?(?:proj|projection|linear|lin|layer|dense))?"
)
_GATE = re.compile(r".*gate.*|w_?3|wi_?0|v|linear_?v|w_?v|fc_?1_g|swish")

# "task_layers" may be one per task; these words do not mean that.
_NEUTRAL = re.compile(
    r"(?:conv|fc|lin|linear|hidden|dense|mlp|ffn|ff|enc|dec|encoder|decoder|transformer|main|core|"
    r"deep|net|base|feature|features|inner|mid|middle|gnn|gcn|gat|graph|res|lstm|rnn|down|up|"
    r"backbone|trunk|body|model|pre|post|the|my|all|block|layer|feed|v|s|down_?sample|up_?sample|"
    r"pts|point|w|module|nn|cnn|head|_)*"
)
# Modules with the first kind of name run in sequence, those with the second in parallel.
_SEQUENTIAL = re.compile(
    r"(?:(?P<of>\w*)_)?(?:layers?|blocks?|stages?|net|features?|convs?|fcs?|linear|lin|dense|hiddens?|mlp|"
    r"ffn?|body|main|trunk|seq|sequential|model|module|encoder|decoder|backbone|classifier|"
    r"units?|cells?|steps?|res|resblocks?|resnets?|feed_?forward|l|h|bottlenecks?|conv\dd|"
    r"groups?|stem|tail|generator|discriminator|actor|critic|policy|value_net|q_net)\d*(?:_\d+)*_?"
)
_PARALLEL = re.compile(
    r"(?:\w*_)?(?:experts?|branch(?:es)?|heads?|towers?|paths?|linears|proj(?:ection)?s|streams?|"
    r"members?|ensembles?|models|critics|qs?|actors|scales|levels|laterals?|adapters?|attn|att|"
    r"attention|self_attn|mha|embeddings?|embeds?|tables?|parallel|options?|ops|candidates|tasks?|"
    r"keys?|queries|values?|k|v|codebooks?|quantizers?|nets)\d*(?:_\d+)*_?"
)


_EMBEDDING = re.compile(
    r"(?:.*_)?(?:emb|embed|embeds|embedding|embeddings|wte|wpe|lookup|w_e|w_pos)(?:_.*)?|.*embeddings?"
)


def is_embedding(name: str) -> bool:
    """Whether a module's name says that it holds an embedding table.

    Examples
    --------
    >>> [is_embedding(name) for name in ("wte", "pos_embed", "patch_embedding", "member")]
    [True, True, True, False]
    """
    return _EMBEDDING.fullmatch(name.lower()) is not None


def role_of(name: str) -> str | None:
    """The role q, k or v in a module's name, or "qkv" for all in one; None without one.

    Examples
    --------
    >>> [role_of(n) for n in ("W_Q", "key_proj", "linear_v", "w_qs", "to_qkv", "c_attn", "mix")]
    ['q', 'k', 'v', 'q', 'qkv', 'qkv', None]
    """
    plain = name.lower().lstrip("_")
    for role, pattern in _ROLE.items():
        if pattern.fullmatch(plain):
            return role
    return "qkv" if _FUSED.fullmatch(plain) else None


def is_output(name: str) -> bool:
    """Whether a module's name says that it is the output map of attention.

    Examples
    --------
    >>> [is_output(n) for n in ("W_O", "out_proj", "c_proj", "dense", "fc", "query", "pos_proj")]
    [True, True, True, True, True, False, False]
    """
    return _OUTPUT.fullmatch(name.lower()) is not None


def may_be_output(name: str) -> bool:
    """Whether a name is compatible with an output map."""
    return _NOT_OUTPUT.search(name.lower()) is None


def mlp_role(name: str) -> str | None:
    """The role up, gate or down in a module's name.

    Examples
    --------
    >>> [mlp_role(n) for n in ("fc1", "c_fc", "w_3", "gate_proj", "W_out", "c_proj", "wo", "mix")]
    ['up', 'up', 'gate', 'gate', 'down', 'down', 'down', None]
    """
    plain = name.lower()
    if _GATE.fullmatch(plain):
        return "gate"
    if UP.fullmatch(plain):
        return "up"
    return "down" if DOWN.fullmatch(plain) else None


def runs_in_sequence(name: str) -> bool | None:
    """Whether modules in a list of this name run in sequence; None if the name does not say.

    Examples
    --------
    >>> [runs_in_sequence(n) for n in ("conv_layers", "experts", "linears", "task_layers")]
    [True, False, False, None]
    """
    plain = name.lower()
    if _PARALLEL.fullmatch(plain):
        return False
    match = _SEQUENTIAL.fullmatch(plain)
    return True if match and _NEUTRAL.fullmatch(match["of"] or "") else None
