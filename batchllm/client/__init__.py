"""The only door to the endpoint, and the only importer of ``openai``: chat requests, files, batches, models."""

from batchllm.client.batches import BatchApi, CallFailed, RemoteBatch
from batchllm.client.chat import MAX_BODY_BYTES, Client, proxy_of

__all__ = ["MAX_BODY_BYTES", "BatchApi", "CallFailed", "Client", "RemoteBatch", "proxy_of"]
