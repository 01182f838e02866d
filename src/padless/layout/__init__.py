"""Index arithmetic of ragged batches, on the host: layouts, schedules, row maps and their checks."""
