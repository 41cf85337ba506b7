"""Joke data: read, clean, cluster near-duplicates, split, and keep the result in a folder.

`joker.data.preparation.prepare` runs the whole way; `joker.data.prepared.PreparedData`
reads what it wrote. Training and evaluation need only the latter.
"""
