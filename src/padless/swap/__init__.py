"""Runs existing models on padless: `accelerate` swaps layers, `install` replaces torch's operators."""
