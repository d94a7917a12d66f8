"""The error of the client itself, measured against a server with known send times."""
