"""The database and the files: the only place that makes anything durable."""
