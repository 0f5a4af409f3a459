"""A job made ready to run: its paths checked, its input read through once, its request builder built."""
