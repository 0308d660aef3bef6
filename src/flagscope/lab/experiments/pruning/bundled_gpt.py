"""Loads the bundled model as the laboratory's GPT, with its held-out text."""

from __future__ import annotations

import json

from safetensors.torch import load_file
from torch import Tensor

from flagscope.demo import final
from flagscope.lab.gpt import GPTShape
from flagscope.lab.text import Corpus, pydoc_corpus


def bundled_gpt() -> tuple[dict[str, Tensor], GPTShape, Corpus]:
    """Weights in float32, shape and text of the bundled model.

    The text is that of the running Python, numbered and split as in the recorded training. If it
    differs from the text of the training, some of the held-out text may have been seen.

    Raises
    ------
    MissingFileError
        If the bundled model is not installed.

    Examples
    --------
    >>> state, shape, corpus = bundled_gpt()
    >>> shape.n_layer, shape.n_head, len(corpus.vocabulary) == shape.vocab_size
    (4, 6, True)
    """
    path = final()
    config = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))
    record = json.loads(path.with_name("training.json").read_text(encoding="utf-8"))
    text = pydoc_corpus(
        held_out=record["text"]["validation_topics"], vocabulary=record["vocabulary"]
    )
    state = {name: tensor.float() for name, tensor in load_file(path).items()}
    return state, GPTShape.of(config), text
