"""The loop of batches: half the price, within a day, one command run until it is done.

Each call of the command walks the same circle, as far as it gets: ``loop`` looks after the batches there are,
lets ``sender`` make batches of the rows that are in none, and waits or says "not ready". ``files`` cuts rows into
files on disk, ``steps`` brings a batch from one durable stage to the next, ``collect`` fetches its results into
the journal and settles its rows, ``lines`` reads them, ``refusal`` says what a failed validation means.

Nothing is imported here, so that a run that makes no batches loads none of it.
"""
