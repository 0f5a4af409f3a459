"""Random worlds in virtual time: a judge of the limiter that knows nothing of its laws."""
