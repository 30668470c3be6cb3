"""Features to representations."""
