"""What lists, plans, comparisons and gates look like on a terminal."""
