"""Measure the error of the client itself against a server with known send times."""
