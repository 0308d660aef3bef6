"""Records of how products of maps move over a series of checkpoints."""

from __future__ import annotations

from pydantic import Field

from flagscope.records.literals import Attention, Freedom
from flagscope.records.series_motion import MapMotion


class ProductMotion(MapMotion):
    """The way of the product W2 W1 of two maps: what a head, or two linear neighbours, do together.

    W is the product, which no change of the basis between its maps moves. Its role is the kind of
    its pair (qk, ov, sequential, …), its tensors are those of W2 and of W1. The output directions
    of a QK product are those that keys read, its input directions those that queries read. Norms
    of differences have a standard deviation of 1.6 % where a product has more than 2,039 entries
    (up to 2.7 % for a change of rank one in more than 2,039 dimensions). What random updates give
    is that of both maps moving by independent entries, each as far as it did; p-values are adjusted
    over all products.
    """

    attention: Attention | None = Field(description="Self or cross, of heads.")
    head: int | None
    between: Freedom = Field(description="Freedom of the space between the maps.")
    shared: int = Field(description="Its dimension.")
    at_one_position: bool = Field(
        description="Whether a rotary embedding lies between, so that the product is that of a "
        "query and a key at the same position, and changes at others alone are not seen."
    )
    change_random: list[float | None] = Field(
        description="What ‖ΔW‖ since the step before is if both maps move by independent entries, "
        "each as far as it did: a smaller change says that they moved in the basis between them, "
        "or in directions that the other hardly takes up."
    )
