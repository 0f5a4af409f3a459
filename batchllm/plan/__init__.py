"""Decides which rows need a request, and what it is: the plan, reuse, re-asking, conversations."""
