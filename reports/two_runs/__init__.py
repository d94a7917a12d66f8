"""Two runs side by side, and the gate between them."""
