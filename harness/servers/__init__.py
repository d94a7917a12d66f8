"""One server: started, ready, alive, asked, stopped. Knows no load and no plan."""
