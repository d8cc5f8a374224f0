"""What a run watches of its own health, and what it does when it goes wrong."""
