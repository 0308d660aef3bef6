"""What a report says of its setting and of gauge, before the diagnostics themselves."""

from __future__ import annotations

SETTING = (
    "An adjacent pair consists of two linear maps W1 and W2 with a space Rᵈ between them: W1 "
    "writes to it and W2 reads from it. The write space V = col(W1) is what the first map can "
    "write, and the read space U = row(W2) is what the second can read. A = W1 W1ᵀ and B = W2ᵀ W2 "
    "are the Gram matrices of the maps. Without their traces, they are Ã = A − (tr A/d) I and B̃ "
    "= B − (tr B/d) I. Chance, or a random position, means that the read side is turned by a "
    "uniformly random (Haar) rotation and everything else stays as it is."
)

GAUGE = (
    "Many networks can be rewritten without changing what they compute. Between two linear maps "
    "any invertible matrix g can be inserted: (gW1, W2g⁻¹). Across a ReLU each neuron can be "
    "rescaled. If a norm follows a map, the map can be scaled by a factor. A number that such a "
    "rewriting changes is labelled gauge (G): it depends on how training happened to arrange the "
    "pair as well as on what the pair does. A number that no such rewriting changes is labelled "
    "functional (F). Moving a gain, or the mean that a LayerNorm takes out, between a map and a "
    "norm is not among these rewritings: it keeps the function, and can move functional numbers of "
    "weights as stored. Where it is informative, the pair is also shown balanced: it is rewritten "
    "so that the write and read Gram matrices agree (A = B; across a ReLU, per neuron; under "
    "rotary embeddings, per frequency). Under the full linear freedom a balanced pair always has "
    "C = 0 and ρ = 1, unless it shares a map with other pairs, as in grouped-query attention. "
    "Under this freedom, only the spectrum of W2 W1 and the kernel intersection describe the "
    "function."
)
