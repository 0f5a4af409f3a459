"""A job: what one run does, decided and validated before anything is sent."""

from batchllm.job.assemble import assemble
from batchllm.job.connection import reconnect
from batchllm.job.record import Job

__all__ = ["Job", "assemble", "reconnect"]
