"""Makes a request of each row: messages, parameters, the exact bytes, and the key that identifies them.

Equal bytes have equal keys, so the order of the body is fixed: ``model``, ``messages``, then the parameters by
name. Where a parameter is set more than once, the value nearest to the row wins: the row's own, then the job's, the
template's, the preset's.
"""

from batchllm.request.builder import RequestBuilder
from batchllm.request.messages import reask
from batchllm.request.outcome import Skipped, Unsendable, request_key
from batchllm.request.settings import AnswerSettings, answer_settings
from batchllm.request.spec import answer_spec

__all__ = [
    "AnswerSettings",
    "RequestBuilder",
    "Skipped",
    "Unsendable",
    "answer_settings",
    "answer_spec",
    "reask",
    "request_key",
]
