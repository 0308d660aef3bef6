"""Values and names that a file may hold in place of what it should."""

from __future__ import annotations

import random
from typing import Any

NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 7, 255, 65536, 10**6, 10**8, 2**31 - 1, 2**31, 2**32, 10**12, 2**53, 2**62,
    2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 10**400, -(2**63), 0.5, 1.5, -0.0, 1e-320, 1e38,
    1e300, float("nan"), float("inf"), float("-inf"), True, False,
)  # fmt: skip

TEXTS = (
    "", "x", "8", "0", "-1", "nan", "." * 50, "../x", "/etc/passwd", "a\0b", "\x1b[31m\x1b]0;\x07",
    "\u202eevil", "\u2066\u2069", "\r\n", "\x85\x9b", "\ud800", "\ufeff", "é" * 40, "🙂",
    "x" * 5000, "9" * 5000, "layers." * 300, "http://127.0.0.1:9/x", "%s%n", "{}", "{layer}",
    "(a+)+$",    "</script><script>1</script>", "=cmd|' /C calc'!A0",
    "model.layers.100000000.mlp.up_proj.weight",
    "layers.999999.weight", "module.module.module.x", "weight_scale_inv",
    "x.lora_A.weight", "posix.system", "float8_e4m3fn", "llama", "gpt2",
)  # fmt: skip

# Pickles that run something, if anything runs them: a file in the folder would show it.
PAYLOADS = (
    b"cos\nsystem\n(S'touch canary'\ntR",
    b'cbuiltins\nexec\n(S\'open("canary","w")\'\ntR',
    b"cpathlib\nPath.touch\n(cpathlib\nPath\n(S'canary'\ntRtR",
    b"cbuiltins\ngetattr\n(cos\n.S'mkdir'\ntR(S'canary'\ntR",
)


def deep(rng: random.Random) -> Any:
    """Lists or mappings in each other, a few or as many as Python recurses."""
    value: Any = 1
    listed = rng.random() < 0.5
    for _ in range(rng.choice((3, 50, 400))):
        value = [value] if listed else {"a": value}
    return value


def value(rng: random.Random) -> Any:
    """Anything that JSON can hold."""
    match rng.randrange(8):
        case 0 | 1 | 2:
            return rng.choice(NUMBERS)
        case 3 | 4:
            return rng.choice(TEXTS)
        case 5:
            return rng.choice((None, [], {}, [[]], [1, 2], ["a"], {"a": 1}, [None], {"": {}}))
        case 6:
            return [rng.choice(NUMBERS) for _ in range(rng.choice((1, 3, 70, 5000)))]
        case _:
            return deep(rng)
