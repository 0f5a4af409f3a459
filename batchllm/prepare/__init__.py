"""Prepares a job: checks its paths, scans its input, makes its request builder."""
