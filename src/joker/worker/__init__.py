"""The worker: processes jobs from Redis."""
