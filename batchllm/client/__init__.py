"""The only door to the endpoint, and the only importer of ``openai``: chat requests, files, batches, models.

``batchllm.client.batches`` stands apart, because it loads the SDK, which single requests can do without.
"""

from batchllm.client.chat import MAX_BODY_BYTES, Client, proxy_of

__all__ = ["MAX_BODY_BYTES", "Client", "proxy_of"]
