"""Index arithmetic of lengths as operators of `torch.library`, for `torch.compile` and `torch.export`.

A compiled program knows the shapes of lengths and batch sizes, not their values. The operators compute on the host
at every call, with the same checks as in eager mode; their fake implementations give the shapes of the results, some
of which depend on the values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import Library, get_ctx, register_fake

from .checks import checked_lengths, checked_slots, checked_total_length
from .layout import HostLayout
from .rows import RowMap

__all__ = ["grid_schedule", "pack_indices", "pad_indices", "rows_schedule", "slot_lengths", "untraced"]

_library = Library("padless", "FRAGMENT")
_library.define("checked_lengths(Tensor lengths, SymInt? steps) -> Tensor")
_library.define("batch_sizes(Tensor lengths) -> Tensor")
_library.define("row_owners(Tensor counts, SymInt rows) -> Tensor")
_library.define("padded_rows(Tensor lengths, SymInt steps, bool batch_first, bool left) -> Tensor")
_library.define("padded_cells(Tensor lengths, SymInt steps, bool batch_first, bool left) -> Tensor")
_library.define("grid_schedule(Tensor lengths, SymInt steps) -> (Tensor, Tensor)")
_library.define("rows_schedule(Tensor lengths, SymInt rows) -> (Tensor, Tensor, Tensor)")
_library.define(
    "pack_indices(Tensor lengths, SymInt steps, bool batch_first, bool enforce_sorted)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)
_library.define(
    "pad_indices(Tensor batch_sizes, Tensor? order, SymInt rows, SymInt steps, bool batch_first) -> (Tensor, Tensor)"
)
_library.define(
    "slot_lengths(Tensor batch_sizes, Tensor? order, Tensor? slots, SymInt rows) -> (Tensor, Tensor, Tensor)"
)
grid_schedule = torch.ops.padless.grid_schedule.default
rows_schedule = torch.ops.padless.rows_schedule.default
pack_indices = torch.ops.padless.pack_indices.default
pad_indices = torch.ops.padless.pad_indices.default
slot_lengths = torch.ops.padless.slot_lengths.default

# Where a graph breaks before an operator, Dynamo would trace its implementation as if it were the user's.
# `torch.compiler.disable` would import Dynamo here, which takes two seconds.
untraced = torch._disable_dynamo  # pyright: ignore[reportPrivateImportUsage]


def _indices(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.int64, device="cpu")


@torch.library.impl(_library, "checked_lengths", "CompositeExplicitAutograd")
@untraced
def _checked_lengths(lengths: Tensor, steps: int | None) -> Tensor:
    """The lengths `(B,)` as int64 on the host, checked as in eager mode."""
    return checked_lengths(lengths, steps=steps)


@register_fake("padless::checked_lengths")
def _fake_checked_lengths(lengths: Tensor, steps: int | None) -> Tensor:
    return _indices(lengths.shape[0])


@torch.library.impl(_library, "batch_sizes", "CompositeExplicitAutograd")
@untraced
def _batch_sizes(lengths: Tensor) -> Tensor:
    """How many sequences run at each step, `(T,)`."""
    return HostLayout(lengths).batch_sizes.clone()


@register_fake("padless::batch_sizes")
def _fake_batch_sizes(lengths: Tensor) -> Tensor:
    return _indices(get_ctx().new_dynamic_size())


@torch.library.impl(_library, "row_owners", "CompositeExplicitAutograd")
@untraced
def _row_owners(counts: Tensor, rows: int) -> Tensor:
    """The number of the count that each of `rows` rows belongs to, `(rows,)`; the counts sum to `rows`."""
    return torch.repeat_interleave(counts, output_size=rows)


@register_fake("padless::row_owners")
def _fake_row_owners(counts: Tensor, rows: int) -> Tensor:
    return _indices(rows)


@torch.library.impl(_library, "padded_rows", "CompositeExplicitAutograd")
@untraced
def _padded_rows(lengths: Tensor, steps: int, batch_first: bool, left: bool) -> Tensor:
    """The back-to-back row of each cell of a padded grid, `(B * steps,)`; N if the cell has none."""
    return _map_to_cells(lengths, steps, batch_first, left).index.long()


@register_fake("padless::padded_rows")
def _fake_padded_rows(lengths: Tensor, steps: int, batch_first: bool, left: bool) -> Tensor:
    return _indices(lengths.shape[0] * steps)


@torch.library.impl(_library, "padded_cells", "CompositeExplicitAutograd")
@untraced
def _padded_cells(lengths: Tensor, steps: int, batch_first: bool, left: bool) -> Tensor:
    """The cell of each back-to-back row in a padded grid, `(N,)`."""
    return _map_to_cells(lengths, steps, batch_first, left).inverse.long()


@register_fake("padless::padded_cells")
def _fake_padded_cells(lengths: Tensor, steps: int, batch_first: bool, left: bool) -> Tensor:
    return _indices(get_ctx().new_dynamic_size())


def _map_to_cells(lengths: Tensor, steps: int, batch_first: bool, left: bool) -> RowMap:
    return HostLayout(checked_lengths(lengths, steps=steps)).padded(steps, batch_first=batch_first, left=left)


@torch.library.impl(_library, "grid_schedule", "CompositeExplicitAutograd")
@untraced
def _grid_schedule(lengths: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Batch sizes `(steps,)`, which may end in zeros, and order `(B,)` of the sequences of a padded batch."""
    layout = HostLayout(checked_lengths(lengths, steps=steps))
    batch_sizes = torch.zeros(steps, dtype=torch.int64, device="cpu")
    batch_sizes[: layout.steps] = layout.batch_sizes
    return batch_sizes, layout.order.clone()


@register_fake("padless::grid_schedule")
def _fake_grid_schedule(lengths: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    return _indices(steps), _indices(lengths.shape[0])


@torch.library.impl(_library, "rows_schedule", "CompositeExplicitAutograd")
@untraced
def _rows_schedule(lengths: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Batch sizes `(T,)`, order `(B,)` and the first row of the sequence in each slot `(B,)`, for back-to-back rows."""
    layout = HostLayout(checked_lengths(lengths))
    layout.check_rows(rows)
    return layout.batch_sizes.clone(), layout.order.clone(), layout.offsets[layout.order]


@register_fake("padless::rows_schedule")
def _fake_rows_schedule(lengths: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    return _indices(get_ctx().new_dynamic_size()), _indices(lengths.shape[0]), _indices(lengths.shape[0])


@torch.library.impl(_library, "pack_indices", "CompositeExplicitAutograd")
@untraced
def _pack_indices(
    lengths: Tensor, steps: int, batch_first: bool, enforce_sorted: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The cell `(N,)` of each time-major row in a padded batch, batch sizes `(T,)`, order and slots `(B,)`."""
    checked = checked_lengths(lengths, steps=steps)
    layout = HostLayout(
        checked, order=torch.arange(checked.numel(), device="cpu") if enforce_sorted else None
    )
    if enforce_sorted and not layout.is_sorted:
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True; "
            "pass `enforce_sorted=False` to have the sequences sorted"
        )
    cells = layout.padded_time_major(steps, batch_first=batch_first).inverse.long()
    return cells, layout.batch_sizes.clone(), layout.order.clone(), layout.slots.clone()


@register_fake("padless::pack_indices")
def _fake_pack_indices(
    lengths: Tensor, steps: int, batch_first: bool, enforce_sorted: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, sizes = lengths.shape[0], get_ctx().new_dynamic_size
    return _indices(sizes()), _indices(sizes()), _indices(batch), _indices(batch)


@torch.library.impl(_library, "pad_indices", "CompositeExplicitAutograd")
@untraced
def _pad_indices(
    batch_sizes: Tensor, order: Tensor | None, rows: int, steps: int, batch_first: bool
) -> tuple[Tensor, Tensor]:
    """The time-major row of each cell `(T, B)` or `(B, T)`, or `rows` if it has none, and lengths `(B,)`."""
    order, slots = checked_slots(batch_sizes, order, None, rows=rows)
    layout = HostLayout.of_batch_sizes(batch_sizes, order, slots, rows=rows)
    checked_total_length("total_length", steps, layout.steps)
    index = layout.padded_time_major(steps, batch_first=batch_first).index.long()
    return index.view((layout.batch, steps) if batch_first else (steps, layout.batch)), layout.lengths.clone()


@register_fake("padless::pad_indices")
def _fake_pad_indices(
    batch_sizes: Tensor, order: Tensor | None, rows: int, steps: int, batch_first: bool
) -> tuple[Tensor, Tensor]:
    batch = get_ctx().new_dynamic_size() if order is None else order.shape[0]
    return _indices(*((batch, steps) if batch_first else (steps, batch))), _indices(batch)


@torch.library.impl(_library, "slot_lengths", "CompositeExplicitAutograd")
@untraced
def _slot_lengths(
    batch_sizes: Tensor, order: Tensor | None, slots: Tensor | None, rows: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Lengths, order and slots `(B,)`, on the host, of the fields of a `PackedSequence`."""
    checked = checked_slots(batch_sizes, order, slots, rows=rows)
    layout = HostLayout.of_batch_sizes(batch_sizes, *checked, rows=rows)
    return layout.lengths, layout.order, layout.slots


@register_fake("padless::slot_lengths")
def _fake_slot_lengths(
    batch_sizes: Tensor, order: Tensor | None, slots: Tensor | None, rows: int
) -> tuple[Tensor, Tensor, Tensor]:
    given = slots if order is None else order
    batch = get_ctx().new_dynamic_size() if given is None else given.shape[0]
    return _indices(batch), _indices(batch), _indices(batch)
