"""Published sentences about engines as files, and what a run says of them."""
