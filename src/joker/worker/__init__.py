"""The worker: takes jobs from Redis and tells them."""
