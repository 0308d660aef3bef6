"""Family files: what a model family's tensors are called and how they lie, as data.

Each file in ``families/`` is TOML. Names are relative to a layer's `path`, any prefix of the
path is found from the tensor names, and alternatives (a name in a live module and the one on
disk) are arrays, of which the first that exists counts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from flagscope.arch.family import (
    ROLE_AXES,
    AttentionRule,
    ChainRule,
    Family,
    FlagRule,
    FrameRule,
    LatentRule,
    MapRule,
    MlpRule,
    NormRule,
    RotaryRule,
    SequenceRule,
    StackRule,
    StreamRule,
)
from flagscope.arch.family_values import (
    check_activation,
    read_activation,
    read_config,
    read_flag,
)
from flagscope.arch.layout import parse_layout
from flagscope.arch.table import Table
from flagscope.errors import ArchitectureError

UNFILLED = "?"
"""What a draft has in place of a name that its user is to fill in."""


def parse_toml(text: str, place: str) -> dict[str, Any]:
    """The content of a TOML text; `place` names it in errors."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers of 5,000 digits, arrays in arrays
        raise ArchitectureError(
            f"{place}: {str(error)[:200]}", hint="the file must be valid TOML"
        ) from error


def read_family(
    content: Mapping[str, Any], place: str, others: Mapping[str, Mapping[str, Any]] | None = None
) -> Family:
    """A validated family from the content of its file.

    Parameters
    ----------
    content
        The parsed TOML.
    place
        Name of the file, for errors.
    others
        Contents of other family files by name, for `extends`: what this file does not say,
        other than its identity, is as in that one.

    Raises
    ------
    ArchitectureError
        With the place of the first mistake: a missing or unknown key, a wrong type, a layout
        that does not parse or lacks an axis that the role needs.

    References
    ----------
    Layouts are einops patterns: Rogozhnikov, ICLR 2022.

    Examples
    --------
    >>> read_family({"name": "x", "title": "X", "chain": {}}, "x.toml").chain.activation.default
    'unknown'
    """
    merged = _extended(content, place, others or {})
    table = Table(merged, place)
    sizes = table.table("sizes")
    chain = table.table("chain")
    family = Family(
        name=table.text("name"),
        title=table.text("title"),
        model_types=table.names("model_types", ()),
        requires=table.names("requires", ()),
        prefixes=table.names("prefixes", ()),
        ignore=table.names("ignore", ()),
        sizes=_read_sizes(sizes) if sizes else {},
        stacks=tuple(_read_stack(one) for one in table.tables("stacks")),
        chain=_read_chain(chain) if chain else None,
        named=not table.flag("unnamed") and "extends" not in content,
        sequences=tuple(_read_sequence(one) for one in table.tables("sequences")),
    )
    table.close()
    if not family.stacks and family.chain is None and not family.sequences:
        raise ArchitectureError(
            f"{place}: neither stacks nor sequences nor a chain",
            hint="add a [[stacks]], [[sequences]] or [chain] table",
        )
    return family


def _extended(
    content: Mapping[str, Any], place: str, others: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    merged = dict(content)
    parent = merged.pop("extends", None)
    if parent is None:
        return merged
    base = others.get(parent) if isinstance(parent, str) else None
    if base is None or "extends" in base:
        raise ArchitectureError(
            f"{place}.extends: {parent!r} is not a family that stands by itself",
            hint="name a family file that does not extend another one",
        )
    identity = ("name", "title", "model_types", "requires", "prefixes")
    return {k: v for k, v in base.items() if k not in identity} | merged


def _read_sizes(table: Table) -> dict[str, tuple[str, ...]]:
    return {axis: table.names(axis) for axis in table}


def _read_chain(table: Table) -> ChainRule:
    rule = ChainRule(read_activation(table.table("activation")))
    table.close()
    return rule


def _read_map(table: Table, role: str) -> MapRule:
    out, inp, batch = ROLE_AXES[role]
    layout = table.text("layout")
    try:
        axes = {name for group in parse_layout(layout) for name in group}
    except ArchitectureError as error:
        raise ArchitectureError(f"{table.place}.layout: {error}", hint=error.hint) from error
    if role in ("k", "v") and "g" in axes:
        batch = "g"
    given = table.optional_text("batch")
    rule = MapRule(
        role=role,
        modules=table.names("module"),
        layout=layout,
        out=table.text("out", out),
        inp=table.text("inp", inp),
        batch=(given or None) if given is not None else batch,
        select=table.integers("select"),
        norms=table.names("norm", ()),
        joint=table.text("joint", "."),
        window=table.texts("window"),
        parameter=table.flag("parameter"),
    )
    table.close()
    if UNFILLED in rule.modules:
        raise ArchitectureError(
            f"{table.place}.module: still to be filled in",
            hint="write the module's name, relative to the path, in place of the question mark; "
            "leave out a block that the model does not have",
        )
    needed = {
        rule.out,
        rule.inp,
        *rule.select,
        *rule.window,
        *(rule.batch.split() if rule.batch else ()),
    }
    if needed - axes:
        raise ArchitectureError(
            f"{table.place}.layout: {layout!r} lacks the axis {sorted(needed - axes)[0]!r}",
            hint=f"a map of role {role} has output {rule.out}, input {rule.inp} and "
            f"batch {rule.batch}; name others by out, inp and batch",
        )
    return rule


def _read_norm_if(table: Table | None, placement: str = "pre") -> NormRule | None:
    return _read_norm(table, placement) if table is not None else None


def _read_norm(table: Table, placement: str = "pre") -> NormRule:
    pre, post = table.table("pre"), table.table("post")
    rule = NormRule(
        modules=table.names("module"),
        kind=table.choice("kind", ("layernorm", "rmsnorm", "batchnorm", "by_bias")),
        eps=read_config(table.table("eps"), 1e-5),
        offset=table.number("offset", 0.0),
        placement=table.choice("placement", ("pre", "post", "map"), placement),
        tensors=not table.flag("no_tensors"),
        pre=read_flag(pre, True) if pre else None,
        post=read_flag(post, False) if post else None,
        not_first=table.flag("not_first"),
        less_one=table.names("less_one", ()),
        stored=_read_stored(table),
    )
    table.close()
    return rule


def _read_stored(table: Table) -> tuple[str, str]:
    names = table.names("stored", ("weight", "bias"))
    if len(names) != 2:
        raise ArchitectureError(
            f"{table.place}.stored: expected the names of the gain and of the bias, got {names!r}",
            hint='as in stored = ["scale", "shift"]',
        )
    return names[0], names[1]


def _read_rotary(table: Table | None) -> RotaryRule | None:
    if table is None:
        return None
    layout = table.choice("layout", ("half", "interleaved"))
    dims, interval = table.table("dims"), table.table("interval")
    rule = RotaryRule(
        layout=layout,
        fraction=read_config(table.table("fraction"), 1.0),
        dims=read_config(dims, 0.0) if dims else None,
        unless=table.names("unless", ()),
        layers=table.names("layers", ()),
        values=table.names("values", ()),
        interval=read_config(interval, 0.0) if interval else None,
        interleaved=table.names("interleaved", ()),
    )
    table.close()
    return rule


def _read_maps(table: Table, roles: tuple[str, ...], optional: tuple[str, ...] = ()) -> Any:
    maps = []
    for role in (*roles, *optional):
        one = table.table(role)
        if one is not None:
            maps.append(_read_map(one, role))
        elif role in roles:
            table.text(role)  # raises: the key is missing
    return tuple(maps)


def _read_attention(table: Table) -> AttentionRule:
    valued = "v" in table or "o" in table
    rule = AttentionRule(
        kind=table.choice("kind", ("self", "cross"), "self"),
        maps=_read_maps(table, ("q", "k", "v", "o") if valued else ("q", "k")),
        norm=_read_norm_if(table.table("norm")),
        rotary=_read_rotary(table.table("rotary")),
        query_norm=table.names("query_norm", ()),
        key_norm=table.names("key_norm", ()),
        relative=table.names("relative", ()),
        optional=table.flag("optional"),
        heads_differ=table.flag("heads_differ"),
        normalised=table.names("normalised", ()),
        clipped=table.names("clipped", ()),
        spaces=table.names("spaces", ("q", "k", "v", "o")),
        name=table.text("name", ""),
        reads=_read_reads(table.table("reads")),
        bare=table.flag("bare"),
        output_norm=_read_norm_if(table.table("output_norm"), "map"),
        output_scale=table.names("output_scale", ()),
    )
    table.close()
    return rule


def _read_reads(table: Table | None) -> dict[str, MapRule]:
    if table is None:
        return {}
    found = {}
    for label in table:
        one = table.table(label)
        if one is not None:
            found[label] = _read_map(one, label if label in ("q", "k", "v") else "compress")
    table.close()
    return found


def _read_mlp(table: Table) -> MlpRule:
    rule = MlpRule(
        maps=_read_maps(table, ("up", "down"), ("gate",)),
        activation=read_activation(table.table("activation")),
        optional=table.flag("optional"),
        norm=_read_norm_if(table.table("norm")),
        name=table.text("name", "mlp"),
        mixes_tokens=table.flag("mixes_tokens"),
        bounded=table.flag("bounded"),
        bare=table.flag("bare"),
        output_norm=_read_norm_if(table.table("output_norm"), "map"),
        output_scale=table.names("output_scale", ()),
    )
    table.close()
    return rule


def _read_latent(table: Table) -> LatentRule:
    norm = table.table("norm")
    rule = LatentRule(
        name=table.text("name"),
        maps=_read_maps(table, ("compress", "expand")),
        norm=_read_norm(norm if norm else Table({}, f"{table.place}.norm")),
    )
    table.close()
    return rule


def _read_sequence(table: Table) -> SequenceRule:
    activation = table.table("activation")
    tables = table.tables("maps")
    after = tuple(one.text("after", "") for one in tables)
    maps = tuple(_read_map(one, _sequence_role(one)) for one in tables)
    for one, name in zip(tables, after, strict=True):
        if name not in ("", "norm"):
            check_activation(name, f"{one.place}.after")
    rule = SequenceRule(maps, after, read_activation(activation))
    table.close()
    return rule


def _sequence_role(table: Table) -> str:
    """A layout of two dimensions is a linear map's, one of more a convolution's."""
    layout = table.look("layout")
    try:
        return "linear" if len(parse_layout(layout)) == 2 else "conv"
    except ArchitectureError as error:
        raise ArchitectureError(f"{table.place}.layout: {error}", hint=error.hint) from error


def _read_stream(table: Table | None) -> StreamRule | None:
    if table is None:
        return None
    parts = {key: table.table(key) for key in ("shortcut", "entry", "exit")}
    roles = {"shortcut": "conv", "entry": "conv", "exit": "linear"}
    maps = {k: _read_map(one, roles[k]) if one else None for k, one in parts.items()}
    table.close()
    return StreamRule(**maps)


def _read_frame(table: Table | None) -> FrameRule | None:
    if table is None:
        return None
    rule = FrameRule(
        embedding=table.names("embedding"),
        unembedding=table.names("unembedding"),
        root=table.text("root"),
        tied=table.names("tied", ()),
        norm=_read_norm_if(table.table("norm")),
    )
    table.close()
    return rule


def _read_stack(table: Table) -> StackRule:
    activation = table.table("activation")
    sizes = table.table("sizes")
    parallel = table.table("parallel") if not table.is_flag("parallel") else None
    stack = StackRule(
        name=table.text("name"),
        paths=table.names("path"),
        attention=tuple(_read_attention(one) for one in table.tables("attention")),
        mlp=tuple(_read_mlp(one) for one in table.tables("mlp")),
        sequence=tuple(_read_map(one, "conv") for one in table.tables("sequence")),
        activation=read_activation(activation) if activation else None,
        stream=_read_stream(table.table("stream")),
        frame=_read_frame(table.table("frame")),
        latent=tuple(_read_latent(one) for one in table.tables("latent")),
        sizes=_read_sizes(sizes) if sizes else {},
        parallel=read_flag(parallel, False) if parallel else FlagRule((), table.flag("parallel")),
        depth=table.names("depth", ()),
        norms_shown=table.flag("norms_shown"),
    )
    table.close()
    for path in stack.paths:
        if path and not path.endswith("."):
            raise ArchitectureError(
                f"{table.place}.path: {path!r} must end with a dot, behind the number in braces "
                "where there are several layers",
                hint="as in 'encoder.layer.{layer}.'",
            )
    return stack
