"""The parameters of a request: layers merged, and fitted to models that reason.

Of a model that reasons, ``max_tokens`` means the visible answer: what is sent has room for reasoning beside it,
asks for the least effort unless told otherwise, and leaves out what the model refuses.
"""

import math
from collections.abc import Mapping
from typing import Any

from batchllm import presets
from batchllm.request.outcome import InvalidRow

_BOUNDS = frozenset({"max_tokens", "max_completion_tokens"})


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """The layers as one, the later over the earlier.

    ``None`` takes a parameter out. One way to bound the answer replaces the other. What is in ``extra_body``
    goes to the top, unchanged and over everything else.
    """
    result: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for layer in layers:
        if not _BOUNDS.isdisjoint(layer):
            for name in _BOUNDS:
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


def fitted(model: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters as this model takes them, by name.

    Raises:
        InvalidRow: They ask for what a row has no place for.
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
        visible = whole(parameters.get("max_tokens"))
        if visible is not None:
            del parameters["max_tokens"]
            parameters[known.max_tokens_parameter] = visible + known.room_tokens(effort)
    return dict(sorted(parameters.items()))


def max_tokens(parameters: Mapping[str, Any]) -> int | None:
    """The most tokens an answer may have, ``None`` where nothing bounds it."""
    bound = whole(parameters.get("max_completion_tokens"))
    return bound if bound is not None else whole(parameters.get("max_tokens"))


def whole(value: Any) -> int | None:
    """A whole number out of JSON, whichever way it is written; ``None`` where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value)
