"""What a chart draws, computed and thinned; draws nothing."""
