"""Builds the graph from tensor names, shapes and a config, as family files describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from flagscope.arch.config_values import known_sizes
from flagscope.arch.depth import named_depth_note
from flagscope.arch.family_match import Choice, choose, layer_base
from flagscope.arch.graph import Graph, HeadGroup, PairGroup
from flagscope.arch.inferred import DOUBTED, inferred
from flagscope.arch.limits import LONGEST_NAME
from flagscope.arch.notes import Notes
from flagscope.arch.outer_freedom import with_outer_freedoms
from flagscope.arch.outside import outside_modules
from flagscope.arch.pair_names import with_own_names
from flagscope.arch.reading import SIZES, Reading
from flagscope.arch.rule_context import Shapes
from flagscope.arch.stacks import BUFFERS, StackBuilder
from flagscope.arch.stated import check_stated, with_key
from flagscope.arch.stream_links import head_links
from flagscope.arch.stream_pairs import residual_pairs
from flagscope.arch.wired import FAMILY as WIRED
from flagscope.arch.wired import wired_graph
from flagscope.errors import ArchitectureError, InputError
from flagscope.wiring import Wiring

NO_FAMILY = "none"
"""Family name that means to read the tensors without a family."""
# Biases with a separate axis of heads.
BIASES = ("*.bias", "*_bias")


def build_graph(
    shapes: Mapping[str, tuple[int, ...]],
    config: Mapping[str, Any] | None = None,
    *,
    family: str | None = None,
    heads: int | None = None,
    window: int = 1,
    wiring: Wiring | None = None,
) -> Graph:
    """The graph of a network's linear maps from the names and shapes of its tensors.

    The family is the named one, else that of the config's ``model_type``, else the one whose
    tensor names fit. Without a known family, common names and matching dimensions are used; notes
    say what they do not determine.

    Parameters
    ----------
    shapes
        Shape of every tensor by name. Prefixes of wrappers (``bert.``, ``model.``) are found.
    config
        The model's config.json, if there is one. It gives head counts, activations, rotary
        fractions; each is checked against the shapes. Of a model of several parts with a config
        each (``text_config``) the language model is mapped.
    family
        Name of a family (see `families`) or path of a family file (.toml), to be taken whatever the
        config says; "none" to take no family for its names.
    heads
        Number of attention heads (query heads), to be taken whatever the config says.
    window
        How many layers further a block may lie that reads what another one writes to the residual
        stream (see `residual_pairs`); 0 for no such pairs. Pairs along the stream of a
        convolutional network, from each block to the next, are always listed.
    wiring
        What the file's own graph says. It decides where no family with layers is named or found.

    Returns
    -------
    Graph
        Pairs, heads' spaces, unmapped matrices, notes, residual streams and links along them.

    Raises
    ------
    InputError
        If an argument is of the wrong form.
    ArchitectureError
        If the family is unknown or has none of its tensors here, or if a tensor's shape
        contradicts the config; the message names the tensor, its shape and the config key.

    References
    ----------
    The pairs are the adjacent maps of Xiao, Sui, Ruan, arXiv 2605.09861; Q-K and V-O pairs as in
    Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021).

    Examples
    --------
    >>> graph = build_graph({"0.weight": (8, 4), "2.weight": (3, 8)}, {"activation": "relu"})
    >>> graph.family, graph.pairs[0].name, graph.pairs[0].freedom
    ('mlp', '0-2', 'scaling')
    """
    every = _checked_shapes(shapes)
    _check_arguments(config, heads, window)
    # Empty tensors may have shapes of any size, and hold nothing to measure.
    empty = [name for name, shape in every.items() if 0 in shape]
    # Name patterns take quadratic time in the length of a name.
    long = [name for name, shape in every.items() if len(name) > LONGEST_NAME and 0 not in shape]
    aside = {*empty, *long}
    checked = {name: shape for name, shape in every.items() if name not in aside}
    # Empty tensors still end a sequence.
    seen = {name: (0,) if 0 in shape else shape for name, shape in every.items()
            if name not in long}  # fmt: skip
    graph = _built(checked, seen, config, family=family, heads=heads, window=window, wiring=wiring)
    matrices = tuple(name for name, shape in every.items() if name in aside and len(shape) >= 2)
    return replace(
        graph,
        unmapped=(*graph.unmapped, *matrices),
        notes=(*graph.notes, *_aside_notes(empty, long)),
    )


def _aside_notes(empty: Sequence[str], long: Sequence[str]) -> list[str]:
    """Notes on tensors that cannot be in any map."""
    notes = []
    if empty:
        notes.append(
            f"tensors without entries, which no scan measures: {len(empty)}, such as {empty[0]}"
        )
    if long:
        notes.append(
            f"tensors with names of more than {LONGEST_NAME} letters, which are not read: "
            f"{len(long)}, such as {long[0]}"
        )
    return notes


def _built(
    checked: Shapes,
    seen: Shapes,
    config: Mapping[str, Any] | None,
    *,
    family: str | None,
    heads: int | None,
    window: int,
    wiring: Wiring | None,
) -> Graph:
    """The graph of non-empty tensors; names are read among all that are `seen`."""
    if not checked:
        return _finished("unknown", [], [], checked, {}, Notes(), reading=None)
    notes, taken = Notes(), Notes()
    choice = None if family == NO_FAMILY else choose(checked, config, family, taken)
    wired = wiring if family is None and wiring and (wiring.maps or wiring.attention) else None
    if wired is not None and not (choice and choice.family.stacks):
        return _wired(wired, checked, config, heads, notes)
    notes = taken
    reading: Reading | None = None
    if choice is None or (choice.family.chain is not None and not choice.family.stacks):
        named = choice
        choice, reading = inferred(seen, config, notes, heads=heads)
        if named is not None and choice is not None:
            choice = _only_sequences(named, choice)
        elif choice is None or not choice.trusted:
            _note_unknown(config, choice, family, notes)
        note = named_depth_note(checked, config)
        if note is not None and (choice is None or not choice.instances):
            notes.add(note)
        if choice is None:
            return _finished("unknown", [], [], checked, {}, notes, reading=reading)
    own = choice.family.file
    if own is not None:
        check_stated(choice.family, choice.instances, checked, own)
    try:
        graph = _graph(choice, checked, notes, heads=heads, window=window, reading=reading)
    except ArchitectureError as error:
        if own is not None:
            raise with_key(error, choice.family, own) from error
        named = family is not None or (config or {}).get("model_type") is not None
        other = None if named or reading else _without_family(choice, checked, heads, window)
        if other is None:
            raise
        return replace(other, notes=(*other.notes, f"what contradicts the family: {error}"))
    if wired is not None and wired.links and not graph.pairs:
        # The exporter kept only some of the family's names.
        return _wired(wired, checked, config, heads, Notes())
    return graph


def _without_family(choice: Choice, shapes: Shapes, heads: int | None, window: int) -> Graph | None:
    """The graph from names and shapes, for a model that contradicts its guessed family.

    None if that gives no heads or leaves more out: the contradiction is then reported.
    """
    notes = Notes()
    notes.add(
        f"its tensors are named as in {choice.family.title}, but their shapes contradict that "
        "family or the config: read by names and shapes alone"
    )
    found, reading = inferred(shapes, choice.config, notes, heads=heads)
    if found is None:
        return None
    notes.add(DOUBTED)
    graph = _graph(found, shapes, notes, heads=heads, window=window, reading=reading)
    mapped = {side.map.tensor for pair in graph.pairs for side in (pair.write, pair.read)}
    named = {name for instance in choice.instances for numbers in instance.numbers
             for rule in instance.rule.maps() for weight in rule.weights()
             if (name := layer_base(instance, numbers) + weight) in shapes}  # fmt: skip
    return graph if graph.heads and named <= mapped else None


def _wired(
    wiring: Wiring, shapes: Shapes, config: Mapping[str, Any] | None, heads: int | None,
    notes: Notes,
) -> Graph:  # fmt: skip
    """The graph from a file's own graph; attention by names if that does not show it."""
    known = known_sizes(SIZES, config, heads, lenient=True)
    found = wired_graph(wiring, shapes, notes, known=known, config=config)
    pairs, spaces = list(found.pairs), list(found.heads)
    return _finished(WIRED, pairs, spaces, shapes, {}, notes, BIASES, reading=None)


def _graph(
    choice: Choice, shapes: Shapes, notes: Notes, *, heads: int | None, window: int,
    reading: Reading | None,
) -> Graph:  # fmt: skip
    """The graph that a family's rules find."""
    config, family = choice.config, choice.family
    stacked = stacked_tensors(choice, shapes)
    every = {**shapes, **{n: (len(p), *shapes[p[0]]) for n, p in stacked.items()}}
    guessed = reading is not None
    known = known_sizes(family.sizes, config, heads, lenient=guessed)
    if (config or {}).get("model_type") not in family.model_types:
        # The config of another model may use other names for the same.
        known = known_sizes(SIZES, config, heads, lenient=True) | known
    builder = StackBuilder(every, config, choice, known, notes, heads, residual=window > 0)
    pairs, spaces = builder.build()
    pairs += [pair for stream in builder.streams for pair in residual_pairs(stream, window=window)]
    if heads is not None and not spaces:
        notes.add(
            f"the number of heads ({heads}) was of no use: no attention was found whose maps can "
            "be cut into so many"
        )
    graph = _finished(
        family.name, pairs, spaces, shapes, stacked, notes, family.ignore, reading=reading
    )
    links = (link for stream in builder.streams for link in head_links(stream, window=window))
    return replace(
        graph,
        frames=tuple(builder.frames),
        streams=tuple(builder.streams),
        links=tuple(links),
        outside=outside_modules(choice),
    )


def _only_sequences(named: Choice, found: Choice) -> Choice:
    """The sequences of a reading, for the family of plain sequences that the user named."""
    rule = named.family.chain
    activation = rule.activation if rule else None
    sequences = tuple(
        sequence.model_copy(update={"activation": activation}) if activation else sequence
        for sequence in found.family.sequences
    )
    family = named.family.model_copy(update={"sequences": sequences})
    return Choice(family, (), True, named.config)


def _note_unknown(
    config: Mapping[str, Any] | None, choice: Choice | None, family: str | None, notes: Notes
) -> None:
    model_type = (config or {}).get("model_type")
    if family != NO_FAMILY:
        told = f"model type {model_type!r}" if model_type is not None else "these tensor names"
        notes.add(f"no family is known for {told}")
    if choice is not None:
        notes.add(DOUBTED)


def stacked_tensors(choice: Choice, shapes: Shapes) -> dict[str, tuple[str, ...]]:
    """Tensors that a family stacks, by the name with a star in place of their numbers.

    Raises
    ------
    ArchitectureError
        If their shapes differ.
    """
    found: dict[str, tuple[str, ...]] = {}
    for instance in choice.instances:
        starred = [n for rule in instance.rule.maps() for n in rule.weights() if "*" in n]
        for numbers in instance.numbers if starred else ():
            for name in starred:
                before, _, after = (layer_base(instance, numbers) + name).partition("*")
                parts = []
                while f"{before}{len(parts)}{after}" in shapes:
                    parts.append(f"{before}{len(parts)}{after}")
                different = {shapes[part] for part in parts}
                if len(different) > 1:
                    raise ArchitectureError(
                        f"{before}*{after}: tensors of different shapes, {sorted(different)[:3]}",
                        hint="one star stands for modules that are alike",
                    )
                if parts:
                    found[f"{before}*{after}"] = tuple(parts)
    return found


def _checked_shapes(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    if not isinstance(shapes, Mapping) or not shapes:
        raise InputError(
            "shapes must be a mapping from tensor names to shapes with at least one tensor",
            hint="does the file hold a state dict?",
        )
    checked = {}
    for name, shape in shapes.items():
        valid = isinstance(name, str) and all(isinstance(n, int) and n >= 0 for n in shape)
        if not valid:
            raise InputError(
                f"tensor {name!r}: {shape!r} is no shape", hint="a shape is a tuple of integers"
            )
        checked[name] = tuple(int(n) for n in shape)
    return checked


def _check_arguments(config: object, heads: object, window: object) -> None:
    if config is not None and not isinstance(config, Mapping):
        raise InputError(
            f"config must be a mapping, got {type(config).__name__}",
            hint="pass the content of config.json",
        )
    if heads is not None and (isinstance(heads, bool) or not isinstance(heads, int) or heads < 1):
        raise InputError(
            f"heads must be a positive integer, got {heads!r}",
            hint="give the number of attention heads of a layer",
        )
    if isinstance(window, bool) or not isinstance(window, int) or window < 0:
        raise InputError(
            f"window must be an integer of at least 0, got {window!r}",
            hint="give the number of layers between a writer and a reader of the residual stream",
        )


def _finished(
    family: str,
    pairs: list[PairGroup],
    heads: list[HeadGroup],
    shapes: Shapes,
    stacked: Mapping[str, tuple[str, ...]],
    notes: Notes,
    ignore: tuple[str, ...] = (),
    *,
    reading: Reading | None,
) -> Graph:
    used = {side.map.tensor for pair in pairs for side in (pair.write, pair.read)}
    used |= {part for name in used & stacked.keys() for part in stacked[name]}
    unmapped = tuple(
        name
        for name, shape in shapes.items()
        if len(shape) >= 2
        and name not in used
        and not any(fnmatchcase(name, pattern) for pattern in (*BUFFERS, *ignore))
    )
    if not pairs:
        notes.add("no adjacent pair could be mapped; the matrices are listed as unmapped")
    reasons = reading.left if reading else {}
    left = {name: f"left unplaced: {reasons[name]}" for name in unmapped if name in reasons}
    return Graph(
        family, with_own_names(with_outer_freedoms(pairs)), tuple(heads), unmapped, notes.texts(),
        stacked=stacked, left=left,
        reading=reading.content if reading and pairs else None,
        unplaced={n: shape for n, shape in shapes.items() if shape and n not in used}
        if reading else {},
    )  # fmt: skip
