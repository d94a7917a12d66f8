"""What a model needs of memory, before anything is downloaded."""
