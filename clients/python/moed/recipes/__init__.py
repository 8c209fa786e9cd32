"""Trainings of the papers' systems and of the shipped checkpoints: python3 -m moed.recipes.NAME --help."""
