"""Ranks that tell each other where they are, and end where they would hang."""
