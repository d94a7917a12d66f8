"""What charts are drawn from."""
