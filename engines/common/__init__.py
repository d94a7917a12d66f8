"""What several engines launch alike."""
