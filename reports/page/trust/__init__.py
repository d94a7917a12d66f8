"""The section on trust: checks, the client's own error, the machine, equal terms, how to run it again."""
