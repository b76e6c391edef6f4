"""Folders of runs: records, checkpoints, locks."""
