"""One server: started, ready, alive, asked, stopped. Knows no plan, and of a load only its decoder."""
