"""Activations that are known, by the names that configs give them."""

from __future__ import annotations

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
