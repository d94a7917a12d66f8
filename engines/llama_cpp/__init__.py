"""llama.cpp, by three programs."""
