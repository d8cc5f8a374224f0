"""What a run will need, told before it runs: memory, arithmetic, hours, and the batch script."""
