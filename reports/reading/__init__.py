"""From files to a cell's values: tables as stored, lists of chunks reduced a batch at a time."""
