"""Service levels: who keeps them, up to which load, and how many users a search found."""
