"""Shards read from end to end, for those that cannot be indexed: resampled, without an order to come back to."""
