"""Names that the wrappers of a model put in front of its tensors' names."""

from __future__ import annotations

from collections.abc import Iterable

# DataParallel and DistributedDataParallel; torch.compile. Both wrap the whole model, so the prefix
# is a wrapper's only if every name has it. "model." is no such prefix: it names a real submodule.
_WRAPPERS = ("module.", "_orig_mod.")


def visible_names(stored: Iterable[str]) -> dict[str, str]:
    """Names without the wrappers' prefixes, each with the name it is stored under.

    Examples
    --------
    >>> visible_names(["module.fc.weight", "module.fc.bias"])
    {'fc.weight': 'module.fc.weight', 'fc.bias': 'module.fc.bias'}
    >>> visible_names(["module.fc.weight", "head.weight"])
    {'module.fc.weight': 'module.fc.weight', 'head.weight': 'head.weight'}
    """
    names = {name: name for name in stored}
    while names:
        prefix = next(
            (
                wrapper
                for wrapper in _WRAPPERS
                if all(name.startswith(wrapper) and name != wrapper for name in names)
            ),
            None,
        )
        if prefix is None:
            break
        names = {name.removeprefix(prefix): stored for name, stored in names.items()}
    return names
