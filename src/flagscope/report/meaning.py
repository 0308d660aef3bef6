"""Meaning of each kind of finding, where to look next, and what it does not mean.

Verdicts in brackets are those of the laboratory (`docs/lab`), by the name of the experiment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from flagscope.records import Freedom, HeadSpace, Label, PairRecord
from flagscope.report.wording import PAGE, with_activation


class Meaning(NamedTuple):
    """Three plain sentences that go with a finding."""

    means: str
    next_step: str
    not_meaning: str

    def fields(self) -> dict[str, Any]:
        """Keyword arguments of `Finding`."""
        return self._asdict()


_START = "`flagscope compare START MODEL` (`flagscope.compare`) shows what training changed."
_COPIES_MEAN = (
    "What the one reads (query, key, value) or writes (output) lies for more than half within what "
    "the other does, as an average over its directions."
)
_COPIES_LIMIT = (
    "It does not mean that one of them can be removed cheaply: that stayed open, and removing two "
    "overlapping heads costs more than the sum of both (laboratory: pruning)."
)
_RELATED_MEAN = (
    "They lean towards each other more than random heads do, and yet much of what the one reads or "
    "writes lies outside of the other. Each pair has a test of its own, whatever other heads do."
)
_RELATED_LIMIT = (
    "It does not mean that they are copies, nor that one is cheap to remove, which stayed open "
    "even for near-copies (laboratory: pruning)."
)
CROWDING = Meaning(
    "Random heads would spread over the whole stream; these use a common part of it. That is a "
    "mean over all pairs of heads: a few close pairs can make it, or all of them a little.",
    f"See in the matrix of a layer {PAGE} whether a few heads do it, or all of them "
    f"a little. {_START}",
    "It does not mean that heads are redundant, nor by itself that something was learnt: for keys, "
    "values and outputs, training on destroyed text was not shown to give less "
    "(laboratory: lm-checkpoints).",
)
KEEPING_APART = Meaning(
    "The heads divide the stream between them more evenly than random heads would.",
    f"See in the matrix of a layer {PAGE} whether all pairs of heads keep apart, or a few of them.",
    "It does not mean that the heads do different things: two heads can do the same in different "
    "directions.",
)
SHARED_DIRECTIONS = Meaning(
    "Each is a direction of the stream in which many heads read, or write, at once. Such "
    "directions add to the overlap of pairs, and pairs can overlap without them.",
    f"The spectrum of a layer {PAGE} lists the heads of each direction; compare it "
    "with the largest weights of the norms and of the embedding.",
    "It does not mean that these heads do the same along it, nor that they cost less to remove, "
    "which stayed open (laboratory: pruning).",
)
LINKS = {
    ("overlap", True): Meaning(
        "Much of what the earlier head can write lies where the later head can read: a channel "
        "that the two may use.",
        f"Compare the composition of the same link {PAGE}, which weighs directions, "
        "and the links next to it: heads that crowd all overlap.",
        "It does not mean that the channel is used: that depends on data.",
    ),
    ("overlap", False): Meaning(
        "The later head can read little of what the earlier head can write.",
        f"See {PAGE} whether all readers of that head look away from it, or this one alone.",
        "It does not mean that the two have no influence on each other: MLPs and other heads carry "
        "it too.",
    ),
    ("composition", True): Meaning(
        "The strong directions of the later head's circuit are those that the earlier head's "
        "circuit writes strongly.",
        "Switch off the earlier head in a run, and see whether the later one changes.",
        "It does not mean that the two work together on real text; with rotary embeddings the "
        "score is that of distance 0.",
    ),
    ("composition", False): Meaning(
        "The later head's circuit uses little of what the earlier head's circuit writes strongly.",
        f"Compare the overlap of the same link {PAGE}: a channel can be open and not weighed.",
        "It does not mean that the two have no influence on each other: MLPs and other heads carry "
        "it too.",
    ),
}
_ALIGNED = {
    ("commutator_ratio", False): "The two maps have axes in common more than at a random position "
    "(their Gram matrices nearly commute): one axis for the first is nearly one for the second.",
    ("commutator_ratio", True): "Strong directions of the one map lie neither along nor across "
    "those of the other (their Gram matrices commute less than at a random position).",
    ("gram_correlation", True): "The second map reads strongly what the first writes strongly.",
    ("gram_correlation", False): "The second map reads weakly what the first writes strongly.",
}
_LINEAR_NOTE = (
    " Q-K and V-O pairs commute more than MLP pairs in language models trained with AdamW too "
    "(laboratory: lm-checkpoints)."
)
GAUGE_LIMIT = (
    "It does not mean that the network needs it: a change of basis that keeps the function moves "
    "this number, and can make any such pair look perfectly aligned (laboratory: invariance)."
)
_OTHER_GAUGE_LIMIT = (
    "It does not mean that the network needs it: a rewriting of the weights that keeps the "
    "function moves this number (laboratory: invariance)."
)
_NONLINEAR_LIMIT = (
    "It does not mean that the two are unrelated: such pairs still align in part "
    "(laboratory: obstruction), and one strong direction at a cosine of 0.1 can raise C to 15."
)
_TRAINED_LIMIT = (
    "It does not mean that weight decay brought it about: AdamW breaks the law by which decay "
    "aligns two maps (laboratory: ridge-rate)."
)
_TAUGHT_LIMIT = (
    "It does not mean that the task needed it: the random position is beaten by a training that "
    "teaches nothing, too (laboratory: lm-checkpoints)."
)
LOST_RANKS = Meaning(
    "Directions that the first map writes end in the kernel of the second: the product of the two "
    "has lower rank than its parts allow. No change of basis moves this.",
    f"Look for dead, pruned or padded neurons, and at the ranks of the two maps {PAGE}.",
    "It does not mean that the network has lost something that it had: the maps may never have "
    "been given these directions.",
)
EXACT_INTERSECTIONS = Meaning(
    "As far as the stored numbers can show, directions that are written are exactly directions "
    "that are read.",
    "Look for tied or copied weights, pruning, or a construction by hand.",
    "It does not mean an invariant of the network's function: an invertible change between linear "
    "maps moves this dimension (laboratory: invariance).",
)
SMALL = Meaning(
    "The numbers differ from chance by more than chance allows, and by little.",
    "Nothing, unless many of them lie on the same side.",
    "It does not mean that they matter: wide maps are tested sharply.",
)


def of_weights_alone(means: str, pair: PairRecord) -> str:
    """What a number of two maps means, with what lies between them and is not looked at."""
    if with_activation(pair):
        return f"{means} The activation between the two ({pair.between}) is not looked at."
    if pair.between == "unknown":
        return (
            f"{means} What lies between the two is not known, and not looked at: a scan of the "
            "module itself with example_inputs knows it."
        )
    return means


def close_heads(*, near: bool, spaces: Sequence[HeadSpace]) -> Meaning:
    """The meaning of heads that are near-copies, or related, in some spaces."""
    command = f"`flagscope heads MODEL --spaces {','.join(spaces)}` (`flagscope.head_overlaps`)"
    if near:
        step = (
            f"{command} compares all heads, with the gains of norms folded in, which moves heads "
            "near the limit to either side of it. Only data can show what removing one costs."
        )
        return Meaning(_COPIES_MEAN, step, _COPIES_LIMIT)
    step = f"See {PAGE} whether few heads of the layer stand out, or all. {command}."
    return Meaning(_RELATED_MEAN, step, _RELATED_LIMIT)


def alignment(observable: str, above: bool, *, label: Label | None, pair: PairRecord) -> Meaning:
    """The meaning of Grams that commute, correlate or clash, of the clause that leads."""
    means = _ALIGNED[observable, above]
    commute = observable == "commutator_ratio" and not above
    if commute and pair.kind in ("qk", "ov"):
        means += _LINEAR_NOTE
    if label == "gauge":
        limit = _gauge_limit(pair.freedom)
    elif observable == "commutator_ratio" and above:
        limit = _NONLINEAR_LIMIT
    else:
        limit = _TRAINED_LIMIT
    # Balanced, any pair under gl has C = 0 and ρ = 1; what is left is the spectrum of the product.
    looked = "the effective rank of W2 W1" if pair.freedom == "gl" else "its balanced values"
    balanced = f" and look at {looked}" if label == "gauge" else ""
    step = f"Open {pair.name} {PAGE}{balanced}. {_START}"
    return Meaning(of_weights_alone(means, pair), step, limit)


def overlap(*, above: bool, dominant: bool, label: Label | None, pair: PairRecord) -> Meaning:
    """The meaning of spaces that overlap, or avoid each other."""
    if dominant:
        means = (
            f"The second map reads {'more' if above else 'less'} of the first's leading directions "
            "than by chance, at the ranks tested; at other ranks it can be the reverse."
        )
    else:
        means = (
            f"The {'alignment' if above else 'avoidance'} is spread over many directions, few or "
            "none of which stand out of the bulk of singular values by themselves."
        )
    step = f"Open {pair.name} {PAGE}: its surface shows at which ranks. {_START}"
    limit = _gauge_limit(pair.freedom) if label == "gauge" else _TAUGHT_LIMIT
    return Meaning(of_weights_alone(means, pair), step, limit)


def _gauge_limit(freedom: Freedom) -> str:
    """Only any invertible change of the shared space can align whatever there is."""
    return GAUGE_LIMIT if freedom == "gl" else _OTHER_GAUGE_LIMIT
