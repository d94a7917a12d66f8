"""Result files of other load generators: read, checked, and written as a results directory.

One file for each tool says what its files look like. None knows reports.
"""
