"""A job: what one run does, decided and validated before anything is sent."""

from batchllm.job.record import Job

__all__ = ["Job"]
