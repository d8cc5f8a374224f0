"""What happens between steps: one file a hook, called in the order of `training/build.py`."""
