"""From requests to jokes: prompts, candidates, retries, ranking and moderation."""
