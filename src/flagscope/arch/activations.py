"""Activations: which changes of the neurons commute with them."""

from __future__ import annotations

from flagscope.records import Freedom

LINEAR = frozenset({"linear", "identity", "none"})
# f(c x) = c f(x) for c > 0. ReLU squared is homogeneous of degree two: it does not commute with
# scalings, so it counts as merely elementwise.
HOMOGENEOUS = frozenset({"relu", "leaky_relu", "leakyrelu", "prelu"})

# Functions of single entries, by their names in configs.
ELEMENTWISE = frozenset({
    "gelu", "gelu_10", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh",
    "gelu_python_tanh", "gelu_accurate", "gelu_tanh", "gelu_exact", "quick_gelu", "quickgelu",
    "silu", "swish", "mish", "relu2", "relu6", "relu_squared", "squared_relu", "elu", "selu",
    "celu", "tanh", "sigmoid", "hard_sigmoid", "hardsigmoid", "hard_tanh", "hardtanh",
    "hard_swish", "hardswish", "softplus", "sqrtsoftplus", "softsign", "logsigmoid",
    "log_sigmoid", "tanhshrink", "softshrink", "hardshrink", "laplace", "xielu", "exp",
    "sin", "sine", "cos", "square", "erf", "clipped_swiglu",
})  # fmt: skip


def activation_freedom(name: str) -> Freedom:
    """The freedom of the neurons on both sides of an activation.

    All of GL(d) without an activation; positive scalings and permutations if it is positively
    homogeneous; permutations for any other known elementwise function; and "none" (none known)
    for any other name, since that function may mix neurons, or halve their number.

    References
    ----------
    Neyshabur, Salakhutdinov, Srebro, "Path-SGD", arXiv 1506.02617 (rescaling of ReLU networks).

    Examples
    --------
    >>> [activation_freedom(name) for name in ("relu", "gelu_new", "swiglu", "unknown")]
    ['scaling', 'permutation', 'none', 'none']
    """
    plain = name.lower()
    if plain in LINEAR:
        return "gl"
    if plain in HOMOGENEOUS:
        return "scaling"
    return "permutation" if plain in ELEMENTWISE else "none"


def elementwise_freedom(name: str) -> Freedom:
    """`activation_freedom` for a function that a trace has shown to act on single entries.

    Examples
    --------
    >>> elementwise_freedom("relu"), elementwise_freedom("expm1"), elementwise_freedom("softmax")
    ('scaling', 'permutation', 'none')
    """
    known = activation_freedom(name)
    mixes = name.lower() in ("unknown", "softmax") or name.lower().startswith("ssm")
    return "permutation" if known == "none" and not mixes else known
