"""Which rows still need a request, and what each request is: the plan, reuse, re-asking, conversations."""
