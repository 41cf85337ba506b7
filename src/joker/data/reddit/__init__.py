"""Rules for Reddit posts: their boilerplate and how they ask questions."""
