"""What kind of event an attempt was, and whether to try again: pure, no I/O, and no clock but the
local one for an instant that comes without the date of its response.

``classify`` reads every dialect of error that OpenAI-compatible endpoints speak: OpenAI and Azure objects,
Anthropic's ``type: error``, Gemini's list of one, Ollama's bare string, integer codes of OpenRouter, an error
inside a 200, a web page instead of JSON. What it decides follows one question: has the answer been paid for?

- Not paid (no connection, 408, 409, 5xx): try again, full jitter (M. Brooker, "Exponential Backoff
  And Jitter").
- Possibly billed (timeout or reset after sending, a cut body): at most two more.
- Paid (any answer): never again.
"""

from batchllm.retry.durations import seconds
from batchllm.retry.policy import ENDPOINTS_OWN, RetryPolicy, SameRejection, may_be_the_rows_own
from batchllm.retry.reading import classify
from batchllm.retry.resets import structured
from batchllm.retry.verdict import Disposition, Verdict

__all__ = [
    "ENDPOINTS_OWN",
    "Disposition",
    "RetryPolicy",
    "SameRejection",
    "Verdict",
    "classify",
    "may_be_the_rows_own",
    "seconds",
    "structured",
]
