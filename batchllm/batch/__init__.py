"""Batch mode: one run through the Batch API, at half the price and within a day.

``loop`` polls live batches, submits rows that are in none, and waits or says "not ready". ``submit`` writes rows into
files and makes batches of them, ``steps`` takes a batch from one durable state to the next, ``collect`` fetches its
results into the journal, ``lines`` reads and writes their lines, ``errors`` says what a failed call or a failed
validation means, ``waiting`` how long a call waits.

Nothing is imported here, so a run without batches loads none of it.
"""
