"""The headers of a job on many machines: what may be secret does not travel.

The dashboard of a cluster shows what workers are told. So a header that comes from ``BATCHLLM_HEADER`` travels by its
name, and each machine takes its value from the same variable.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from batchllm.errors import UsageError
from batchllm.job import Job
from batchllm.job.endpoints import with_endpoints
from batchllm.job.layers import environment_layer
from batchllm.job.options import OPTIONS
from batchllm.records import Endpoint

_VARIABLE = OPTIONS["header"].variable
_OF_THE_NODE = "\n"
"""Stands for a value that does not travel; no header has a line break."""


def without_secrets(job: Job, environ: Mapping[str, str]) -> Job:
    """Returns a job as workers are told it.

    Args:
        job: The job.
        environ: The environment of this machine.

    Raises:
        UsageError: A header that looks like a secret does not come from ``BATCHLLM_HEADER``.
    """
    own = _of_variable(environ)

    def named(endpoint: Endpoint) -> dict[str, str]:
        from batchllm.client.secrets import is_secret_header

        found = {}
        for name, value in endpoint.headers.items():
            by_name = own.get(name) == value
            if not by_name and is_secret_header(name, value):
                raise UsageError(
                    f"--header {name}: the dashboard of the cluster would show its value; set {_VARIABLE}='{name}=…' "
                    "(or OPENAI_CUSTOM_HEADERS, for several) here and on every node instead"
                )
            found[name] = _OF_THE_NODE if by_name else value
        return found

    return _with_headers(job, named)


def with_own_headers(job: Job, environ: Mapping[str, str]) -> Job:
    """Returns a job that a worker was told, with the values that this machine has.

    Raises:
        UsageError: ``BATCHLLM_HEADER`` does not have a header.
    """
    own = _of_variable(environ)

    def valued(endpoint: Endpoint) -> dict[str, str]:
        for name, value in endpoint.headers.items():
            if value == _OF_THE_NODE and name not in own:
                raise UsageError(
                    f"{_VARIABLE} has no {name} there, which the job sends; set it on every node"
                )
        return {
            name: own[name] if value == _OF_THE_NODE else value for name, value in endpoint.headers.items()
        }

    return _with_headers(job, valued)


def _of_variable(environ: Mapping[str, str]) -> dict[str, str]:
    layer = environment_layer({name: value for name, value in environ.items() if name == _VARIABLE})
    found: dict[str, str] = layer.parsed("header") if "header" in layer.values else {}
    return found


def _with_headers(job: Job, headers: Callable[[Endpoint], dict[str, str]]) -> Job:
    """Returns a job whose endpoints, those of its steps included, have other headers."""

    def changed(endpoint: Endpoint) -> Endpoint:
        return replace(endpoint, headers=headers(endpoint)) if endpoint.headers else endpoint

    steps = tuple(replace(step, job=_with_headers(step.job, headers)) for step in job.steps)
    return replace(with_endpoints(job, changed), steps=steps)
