"""The command of a job on many machines in a process of its own, with ``ProcessEngine`` for the cluster.

::

    python -m tests.cluster_driver '{"input": "rows.csv", …}'

The last line of the output has the rows that were possibly billed without an answer.
"""

import json
import os
import sys

from batchllm.cluster.driver import run_cluster
from batchllm.errors import JobError
from batchllm.job import assemble
from tests.cluster_engine import ProcessEngine


def main() -> None:
    job = assemble("classify", json.loads(sys.argv[1]), os.environ)
    try:
        result = run_cluster(job, engine_of=lambda job: ProcessEngine(3))
    except JobError as error:
        print(error, file=sys.stderr)
        sys.exit(int(error.exit_status))
    print(json.dumps(result.possibly_billed_rows))
    sys.exit(result.exit_status)


if __name__ == "__main__":
    main()
