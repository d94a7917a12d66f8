"""What memory is made of, and what a KV cache needs."""
