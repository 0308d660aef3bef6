"""Activations: which changes of the neurons pass through them."""

from __future__ import annotations

from flagscope.arch.graph import Freedom

LINEAR = frozenset({"linear", "identity", "none"})
# f(c x) = c f(x) for c > 0. ReLU squared is homogeneous of degree two: scalings do not pass as
# they are, so it counts as merely elementwise.
HOMOGENEOUS = frozenset({"relu", "leaky_relu", "leakyrelu", "prelu"})

# Functions of single entries, by the names that configs give them.
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

    All of GL(d) where there is none, positive scalings and permutations where it is positively
    homogeneous, permutations for any other elementwise function, and "none" (none that is
    known) where the activation is unknown.

    References
    ----------
    Neyshabur, Salakhutdinov, Srebro, "Path-SGD", arXiv 1506.02617 (rescaling of ReLU networks).

    Examples
    --------
    >>> activation_freedom("relu"), activation_freedom("gelu_new"), activation_freedom("unknown")
    ('scaling', 'permutation', 'none')
    """
    plain = name.lower()
    if plain in LINEAR:
        return "gl"
    if plain in HOMOGENEOUS:
        return "scaling"
    if plain.startswith("ssm"):  # a state-space layer: no elementwise function
        return "none"
    return "none" if plain in ("unknown", "softmax") else "permutation"
