"""What limits a load: compute, bandwidth, the queue or the client."""
