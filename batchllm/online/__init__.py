"""Online mode: single requests, each rate-limited, sent, stored, and then retried or finished."""
