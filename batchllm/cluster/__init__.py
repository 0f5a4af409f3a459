"""One job on many machines: a plan of shards, claims, answer logs, and an engine that exists and runs the workers.

Everything that machines share is in the work folder (``work``): the plan, the claims, the logs of answers and the
summaries. A worker answers one shard with the ordinary run, whose journal is on its own disk, and copies what that
commits into the shard's log. So a shard goes on anywhere, from what the logs have, and two workers at one shard write
to files of their own and cannot spoil each other.

On the machine of the command:

- ``driver``: the whole job in one place; ``driver_claim`` keeps other commands away, ``job_end`` stops it from outside
- ``plan`` and ``planner``: which rows a shard has, and how an input is cut
- ``fan_out``: hands the shards to an ``engine``, of which ``ray_engine`` is the only one
- ``one_output`` and ``parts_output``: what is written of the answers, a file or a folder of ``parts``
- ``progress`` and ``summaries``: how far all machines are, and what they have finished
- ``inspection``: the job of a work folder, for ``status``, ``report`` and ``export``

On each node:

- ``worker``: a process that answers shards one after the other, under leases of ``lease_service``
- ``shard_run``: an attempt at one shard; ``answer_log`` copies its answers
- ``log_format``, ``journal_from_logs`` and ``losses``: what logs look like, the journal that is made of them, and what
  was paid twice

``options`` and ``headers`` say what of a job may go to other machines.
"""
