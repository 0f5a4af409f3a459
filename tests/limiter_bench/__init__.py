"""The limiter's bench: the real limiter objects against written models of endpoints, in virtual time."""
