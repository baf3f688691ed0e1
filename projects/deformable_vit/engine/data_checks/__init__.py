"""Checks of datasets, file by file; :func:`.check.check_datasets` runs them for a config."""
