"""Everything that is kept: records (SQL), objects (S3 or a folder), live state (Redis)."""
