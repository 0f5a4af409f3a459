"""One job on many machines: a plan of shards, claims, answer logs, and an engine that exists and runs the workers.

Everything that machines share is in the work folder (``work``): the plan, the claims, the logs of answers and the
summaries. A worker answers one shard with the ordinary run, whose journal is on its own disk, and copies what that
commits into the shard's log. So a shard goes on anywhere, from what the logs have, and two workers at one shard write
to files of their own and cannot spoil each other.
"""
