"""Counts what padding would cost for the words of a text, by batch size and order; needs no torch."""

import padless

TEXT = """A sequence has a length and a batch is a rectangle so something has to fill the rest
Short sequences wait for long ones and every step they wait is computed and then thrown away"""

lengths = [len(word) for word in TEXT.split()]
print("batch size  order      rows  cells  wasted")
for batch_size in (4, 16):
    for policy in ("given", "random", "sorted"):
        numbers = padless.waste(lengths, batch_size=batch_size, policy=policy)
        print(f"{batch_size:10}  {policy:9}{numbers.rows:6}{numbers.cells:7}{numbers.wasted_percent:7.1f}%")
