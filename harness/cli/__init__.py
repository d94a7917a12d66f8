"""The command line: reads words, calls, shows. The only package that prints."""
