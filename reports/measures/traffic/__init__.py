"""What is measured of one kind of traffic only: a file per topic. Draws nothing."""
