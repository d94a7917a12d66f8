"""What bounded a load, by evidence."""
