"""All traffic with an endpoint, and the only importer of ``openai``: chat requests, files, batches, models.

``batchllm.client.batches`` is not imported here, because it loads the SDK, which chat requests do without.
"""

from batchllm.client.chat import MAX_BODY_BYTES, Client
from batchllm.client.route import Proxy, check_route, proxy_of

__all__ = ["MAX_BODY_BYTES", "Client", "Proxy", "check_route", "proxy_of"]
