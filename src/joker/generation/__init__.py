"""Telling a joke: checks on what a model says before a person reads it."""
