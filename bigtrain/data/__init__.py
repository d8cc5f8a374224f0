"""Floor 2: images from WebDataset tar shards: written, indexed, checked, ordered, read, decoded and fed."""
