"""The tensors of a model that an adapter's names mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class TargetNames:
    """Names of a model's tensors, found by an adapter's: model classes put prefixes in front.

    Parameters
    ----------
    names
        The model's tensors.

    Examples
    --------
    >>> names = TargetNames(["layers.0.q.weight", "text.head.weight"])
    >>> names.found("model.layers.0.q.weight"), names.found("head.weight")
    ('layers.0.q.weight', 'text.head.weight')
    >>> names.found("lora_unet_layers_0_q.weight")
    'layers.0.q.weight'
    >>> names.prefix("model.decoder.0.q.weight")
    ('model.decoder', 'layers')
    """

    def __init__(self, names: Iterable[str] | Mapping[str, Any]) -> None:
        self._names = dict.fromkeys(names)
        self._flat: dict[str, list[str]] | None = None
        # Ends of two parts ("q_proj.weight"): the names that a longer end has to be among.
        self._ends: dict[str, list[str]] = {}
        for name in self._names:
            self._ends.setdefault(_end(name), []).append(name)

    def found(self, name: str) -> str | None:
        """The model's name of a tensor, where prefixes were added or left out; None if none."""
        rest = name
        while "." in rest:
            if rest in self._names:
                return rest
            first, _, rest = rest.partition(".")
            if first.isdecimal():  # a layer's number is not a prefix
                break
        ends = self._ends.get(_end(name), ()) if "." in name else self._names
        longer = [known for known in ends if known.endswith("." + name)]
        if not longer and name.startswith("lora_"):
            longer = self._underscored(name)
        return longer[0] if len(longer) == 1 else None

    def _underscored(self, name: str) -> list[str]:
        """Names that kohya's scripts write with underscores for dots, behind lora_unet_ or so."""
        if self._flat is None:
            self._flat = {}
            for known in self._names:
                stem, _, last = known.rpartition(".")
                self._flat.setdefault(f"{stem.replace('.', '_')}.{last}", []).append(known)
        return self._flat.get(name.split("_", 2)[-1], [])

    def prefix(self, name: str) -> tuple[str, str] | None:
        """Two starts, the adapter's and the model's: exchanged they turn a name into a model's.

        None where no tensor of the model, or more than one, ends in the name from a layer's
        number on.
        """
        parts = name.split(".")
        number = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
        if number is None:
            return None
        end = "." + ".".join(parts[number:])
        longer = [known for known in self._ends.get(_end(name), ()) if known.endswith(end)]
        if len(longer) != 1:
            return None
        return ".".join(parts[:number]), longer[0].removesuffix(end)


def _end(name: str) -> str:
    return ".".join(name.rsplit(".", 2)[-2:])
