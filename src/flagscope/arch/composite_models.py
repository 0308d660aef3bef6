"""Models of several parts, such as a language model with a vision tower.

Their config.json holds a config for each part. Only the language model is mapped, by the family
of its own model type; a note says that the other parts are unmapped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Keys of the language model's config.
LANGUAGE = ("text_config", "language_config", "llm_config")
# Modules of the other parts: vision_tower, visual, audio_model, image_encoder, …
_OTHERS = re.compile(r"(^|\.)(vision|visual|audio|image|speech)")


def language_section(config: Mapping[str, Any] | None) -> tuple[str, Mapping[str, Any]] | None:
    """Key and content of the language model's own config, if there is one.

    References
    ----------
    The composite configurations of transformers (``PreTrainedConfig.sub_configs``).

    Examples
    --------
    >>> language_section({"model_type": "llava", "text_config": {"model_type": "llama"}})
    ('text_config', {'model_type': 'llama'})
    """
    for key in LANGUAGE:
        section = (config or {}).get(key)
        if isinstance(section, Mapping) and section.get("model_type") is not None:
            return key, section
    return None


def is_other_part(prefix: str) -> bool:
    """Whether a stack under this prefix belongs to a part other than the language model.

    Examples
    --------
    >>> is_other_part("model.vision_tower.encoder."), is_other_part("model.language_model.")
    (True, False)
    """
    return _OTHERS.search(prefix) is not None
