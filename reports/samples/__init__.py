"""What samplers saw of host, device and server, cut to each cell's window."""
