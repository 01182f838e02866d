"""padless under models that exist: `accelerate` swaps layers, `install` replaces torch's operators."""
