"""Trainings of the papers' systems, and of the shipped checkpoints, each a program: python3 -m moed.recipes.NAME --help."""
