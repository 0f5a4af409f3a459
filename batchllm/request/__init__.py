"""A row becomes a request: messages, parameters, the exact bytes, and the key that names them.

Equal bytes have equal keys, so the order of the body is fixed: ``model``, ``messages``, then the parameters by
name. Of several wills about a parameter the nearest to the row wins: the row's own, the job's, the template's,
the preset's.
"""

from batchllm.request.builder import RequestBuilder
from batchllm.request.outcome import Skipped, Unsendable, request_key
from batchllm.request.reask import reask
from batchllm.request.spec import answer_spec

__all__ = ["RequestBuilder", "Skipped", "Unsendable", "answer_spec", "reask", "request_key"]
