"""Processes and the machine they run on: starting, meeting, telling apart, being stopped."""
