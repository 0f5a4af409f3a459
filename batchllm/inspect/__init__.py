"""Commands that look at a job without sending its rows: dry run, check, status, show, export, clean, batches."""
