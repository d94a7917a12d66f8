"""Read result files of other load generators, check them, and write them as a results directory.

There is one module per tool. None knows reports.
"""
