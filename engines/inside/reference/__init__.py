"""The reference server, in Python and in C: a program, never imported."""
