"""The results directory as frames. Computes no metric."""
