"""The commands: a file for each kind; harness/cli.py puts them together. They may import anything."""
