"""Joke data: `preparation` turns files into a folder, which `prepared` reads."""
