"""Where images come from before they are shards: each file finds the images of one kind of source."""
