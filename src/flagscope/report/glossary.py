"""What a report says of its setting and of gauge, before the diagnostics themselves."""

from __future__ import annotations

SETTING = (
    "An adjacent pair is two linear maps W1, W2 with one space Rᵈ between them. V = col(W1) is "
    "what the first can write there, U = row(W2) what the second can read; A = W1 W1ᵀ and "
    "B = W2ᵀ W2 are their Grams, and Ã = A − (tr A/d) I, B̃ likewise. Chance means: the read side "
    "is turned by a uniformly (Haar) random rotation, everything else as it is."
)

GAUGE = (
    "Many networks can be rewritten without changing what they compute: between two linear maps "
    "any invertible g may be slipped in, (gW1, W2g⁻¹); across a ReLU each neuron may be rescaled; "
    "a norm behind a map takes its size out. "
    "A number that such a rewriting moves is labelled gauge (G): it tells how training happened to "
    "arrange the pair as well as what the pair does. A number that it cannot move is functional "
    "(F). Where it says something, the pair is also shown balanced: rewritten so that write and "
    "read Gram agree (A = B; across a ReLU, per neuron; under rotary embeddings, per frequency). "
    "Under the full linear freedom the balanced pair always has C = 0 and ρ = 1 (unless it shares "
    "a map with other pairs, as in grouped-query attention), so that there only the spectrum of "
    "W2 W1 and the kernel intersection speak about the function."
)
