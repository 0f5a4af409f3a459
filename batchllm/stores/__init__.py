"""Objects that are elsewhere: in S3, Google Cloud Storage, Azure, or behind a web address.

All that the project does with them is here, in a few functions over ``ObjectUrl``:

- ``head`` says whether there is an object, its size and its ETag; ``read`` gets some of its bytes; ``stream`` all of
  them, in pieces. Both take the ETag of ``head`` and stop with an ``InputError`` where the object is another by now.
- ``whole`` gets a small object by one request, whichever version is there.
- ``put`` puts an object in place whole or not at all; ``create`` does so only where there is none, for one of many
  who try (a conditional put).
- ``listed`` yields the objects below a prefix, in the order of their keys; ``delete`` removes one.
- ``check_writable`` makes sure that an object can be put, without a trace.

Each blocks until it is done. They may be called from threads; from an event loop, call them with
``asyncio.to_thread``. Lost connections and 5xx are retried for about a minute. Every error is a ``JobError`` whose
sentence names the URL and what to do. No text of the store is in it, since such texts can hold signatures.

Credentials are the driver's: the variables ``AWS_*``, ``GOOGLE_*`` and ``AZURE_*`` of the environment, and the roles of
machines. ``obstore`` (extra ``[cloud]``) is loaded at the first call.
"""

from batchllm.stores.driver import settings_of
from batchllm.stores.objects import (
    ObjectInfo,
    check_writable,
    create,
    delete,
    head,
    listed,
    put,
    read,
    stream,
    whole,
)
from batchllm.stores.path import ObjectPath, beside_on_disk, located
from batchllm.stores.url import BUCKETS, ObjectUrl, is_url, object_url

__all__ = [
    "BUCKETS",
    "ObjectInfo",
    "ObjectPath",
    "ObjectUrl",
    "beside_on_disk",
    "check_writable",
    "create",
    "delete",
    "head",
    "is_url",
    "listed",
    "located",
    "object_url",
    "put",
    "read",
    "settings_of",
    "stream",
    "whole",
]
