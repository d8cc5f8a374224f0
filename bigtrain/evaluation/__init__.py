"""What is asked of trained networks, offline: their figures, and whatever else is to be known of them."""
