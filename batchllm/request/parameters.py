"""Merges the layers of parameters and fits them to models that reason.

For a model that reasons, ``max_tokens`` bounds the visible answer. The request adds room for reasoning, asks for
the least effort unless told otherwise, and leaves out parameters that the model refuses.
"""

import math
from collections.abc import Mapping
from typing import Any

from batchllm import presets
from batchllm.request.outcome import InvalidRow

BOUNDS = frozenset({"max_tokens", "max_completion_tokens"})


def merge_layers(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merges the layers; later ones win.

    ``None`` removes a parameter. ``max_tokens`` and ``max_completion_tokens`` replace each other. The members of
    ``extra_body`` go into the body unchanged and win over everything else.
    """
    result: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for layer in layers:
        if not BOUNDS.isdisjoint(layer):
            for name in BOUNDS:
                result.pop(name, None)
        for name, value in layer.items():
            if name == "extra_body" and isinstance(value, Mapping):
                extra.update(value)
            elif value is None:
                result.pop(name, None)
            else:
                result[name] = value
    result.update(extra)
    return result


def fit_to_model(model: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Returns the parameters as this model takes them, sorted by name.

    Raises:
        InvalidRow: They ask for a stream or for several answers.
    """
    if parameters.get("stream"):
        raise InvalidRow("bad_parameter", "stream is set; a row gets its answer whole, so leave it out")
    if parameters.get("n") not in (None, 1):
        raise InvalidRow("bad_parameter", f"n is {parameters['n']!r}; a row has room for one answer only")
    known = presets.reasoning(model, parameters)
    if known is not None:
        effort = parameters.get("reasoning_effort")
        if effort is None and known.lowest_effort is not None:
            effort = parameters["reasoning_effort"] = known.lowest_effort
        for name in known.refused_at(effort):
            parameters.pop(name, None)
        visible = whole_number(parameters.get("max_tokens"))
        if visible is not None:
            del parameters["max_tokens"]
            parameters[known.max_tokens_parameter] = visible + known.room_tokens(effort)
    return dict(sorted(parameters.items()))


def max_tokens(parameters: Mapping[str, Any]) -> int | None:
    """Returns the most tokens that an answer may have, ``None`` where nothing bounds it."""
    bound = whole_number(parameters.get("max_completion_tokens"))
    return bound if bound is not None else whole_number(parameters.get("max_tokens"))


def whole_number(value: Any) -> int | None:
    """Returns a JSON number as an ``int``; ``None`` for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value)
