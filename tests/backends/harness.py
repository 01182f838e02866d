"""Drives the kernels over one layer and direction in any layout; an oracle runs each sequence alone in float64."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from padless.backends import _kernels

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


@dataclass
class Case:
    cell: str
    lengths: list[int]  # in the caller's order
    input: int
    hidden: int
    dtype: torch.dtype = torch.float32
    reverse: bool = False
    bias: bool = True
    projection: int = 0
    precision: str = "highest"
    narrow: bool = False  # x, y, states and weights in bfloat16
    wide_states: bool = False  # but states in `dtype`, as under autocast
    seed: int = 0
    values: dict[str, Tensor] = field(default_factory=dict)  # float64

    def __post_init__(self) -> None:
        g = torch.Generator().manual_seed(self.seed)

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            drawn = (torch.randn(*shape, generator=g, dtype=torch.float64) * scale).to(self.dtype)
            return (drawn.bfloat16() if self.narrow else drawn).double()

        b, width, h, output = len(self.lengths), self.input, self.hidden, self.output
        scale = 1 / max(h, 1) ** 0.5
        rows = GATES[self.cell] * h
        self.values = {
            "w_ih": draw(rows, width, scale=scale), "w_hh": draw(rows, output, scale=scale),
            "h0": draw(b, output), "c0": draw(b, h), "dh_n": draw(b, output), "dc_n": draw(b, h),
        }  # fmt: skip
        if self.bias:
            self.values.update(b_ih=draw(rows, scale=scale), b_hh=draw(rows, scale=scale))
        self.x = [draw(n, width) for n in self.lengths]
        self.dy = [draw(n, output) for n in self.lengths]
        if self.projection:
            self.values["w_hr"] = draw(output, h, scale=scale)

    @property
    def lstm(self) -> bool:
        return self.cell == "LSTM"

    @property
    def output(self) -> int:
        return self.projection or self.hidden

    def get(self, name: str) -> Tensor | None:
        value = self.values.get(name)
        return None if value is None else value.to(self.dtype)


def addresses(lengths: list[int], order: list[int], layout: str) -> tuple[int, Tensor, Tensor]:
    """Rows of the buffer, step offsets and sequence offsets (by slot)."""
    steps = max(lengths, default=0)
    sorted_lengths = [lengths[i] for i in order]
    if layout in ("packed", "time_major"):  # the second leaves the counting to the kernels
        sizes = [sum(n > t for n in lengths) for t in range(steps)]
        starts = [sum(sizes[:t]) for t in range(steps)]
        return sum(lengths), torch.tensor(starts, dtype=torch.int64), torch.arange(len(lengths))
    if layout == "flat":
        starts = [sum(lengths[:i]) for i in range(len(lengths))]
        return sum(lengths), torch.arange(steps), torch.tensor([starts[i] for i in order], dtype=torch.int64)
    if layout == "batch_first":
        return len(lengths) * steps, torch.arange(steps), torch.tensor(order, dtype=torch.int64) * steps
    assert layout == "time_first" and sorted_lengths is not None
    return len(lengths) * steps, torch.arange(steps) * len(lengths), torch.tensor(order, dtype=torch.int64)


def put(
    rows: list[Tensor], lengths, order, layout, dtype, width, poison=float("nan"), extra=0
) -> _kernels.Rows:
    count, step, sequence = addresses(lengths, order, layout)
    data = torch.full((count, width + extra), poison, dtype=dtype)[:, :width]
    for slot, i in enumerate(order):
        for t in range(lengths[i]):
            data[step[t] + sequence[slot]] = rows[i][t].to(dtype)
    return _kernels.Rows(data, step, sequence)


def take(rows: _kernels.Rows, data: Tensor, lengths, order) -> list[Tensor]:
    result = {}
    for slot, i in enumerate(order):
        at = rows.step[: lengths[i]] + rows.sequence[slot]
        result[i] = data[at]
    return [result[i] for i in range(len(lengths))]


def run(case: Case, *, layout="packed", y_layout=None, threads=1, mode="train", extra=0) -> dict[str, object]:
    """Outputs and gradients, in the caller's order; mode is infer, train or recompute."""
    k, lengths, h, output, dtype = _kernels, case.lengths, case.hidden, case.output, case.dtype
    row_dtype, precision = torch.bfloat16 if case.narrow else dtype, case.precision
    b, steps, n = len(lengths), max(lengths, default=0), sum(lengths)
    order = sorted(range(b), key=lambda i: -lengths[i])
    batch_sizes = torch.tensor([sum(m > t for m in lengths) for t in range(steps)], dtype=torch.int64)
    x = put(case.x, lengths, order, layout, row_dtype, case.input, extra=extra)
    y = put(case.dy, lengths, order, y_layout or layout, row_dtype, output, extra=extra)
    dy = y.data.clone()
    if extra:
        dy = torch.full((y.data.size(0), output + extra), float("nan"), dtype=row_dtype)[:, :output].copy_(
            y.data
        )
    y.data.fill_(float("nan"))
    index = torch.tensor(order, dtype=torch.int64)
    nan = lambda *shape: torch.full(shape, float("nan"), dtype=dtype)  # noqa: E731

    state_dtype = dtype if case.wide_states else row_dtype

    def states(h_of: Tensor | None, c_of: Tensor | None) -> _kernels.States:
        return k.States(
            *(None if s is None else s.to(state_dtype) for s in (h_of, c_of if case.lstm else None))
        )

    initial, final = states(case.get("h0"), case.get("c0")), states(nan(b, output), nan(b, h))
    train = mode == "train"
    weights = [case.get(name) for name in ("w_ih", "w_hh", "b_ih", "b_hh", "w_hr")]
    if case.narrow:
        weights = [None if w is None else w.bfloat16() for w in weights]
    packed = k.pack_forward(case.cell, *weights, precision=precision)
    gates = nan(n, k.saved_width(case.cell, h)) if train and k.saved_width(case.cell, h) else None
    if gates is not None and case.narrow:
        gates = gates.bfloat16()
    cells = nan(n, k.cells_width(case.cell, h)) if mode != "infer" and case.lstm else None
    common = {
        "state_rows": b,
        "state_index": index,
        "reverse": case.reverse,
        "threads": threads,
        "precision": precision,
        "initial": initial,
        "hidden": h if case.projection else None,
    }
    x_given = k.Rows(x.data) if layout == "time_major" else x
    y_given = k.Rows(y.data) if (y_layout or layout) == "time_major" else y
    k.forward(
        case.cell, packed, x_given, y_given, batch_sizes, n, final=final, gates=gates, cells=cells, **common
    )
    result = {"y": take(y, y.data, lengths, order), "h_n": final.h, "c_n": final.c}
    if mode == "infer":
        return result
    rows = GATES[case.cell] * h
    d_initial = states(nan(b, output), nan(b, h))
    grads = {
        "dw_ih": nan(rows, case.input),
        "dw_hh": nan(rows, output),
        "db_ih": nan(rows),
        "db_hh": nan(rows),
    }
    if case.projection:
        grads["dw_hr"] = nan(output, h)
    dx = torch.full((x.data.size(0), case.input + extra), 7.0, dtype=row_dtype)[:, : case.input]
    saved = None if gates is None else gates.clone()
    k.backward(
        case.cell, k.pack_backward(case.cell, *weights[:2], weights[4], precision=precision),
        x_given, y_given, batch_sizes, n,
        gates=gates, cells=cells,
        packed_forward=packed, dy=dy, d_final=states(case.get("dh_n"), case.get("dc_n")),
        d_initial=d_initial, dx=dx, **grads, **common,
    )  # fmt: skip
    for rows_written, poison in ((y.data, float("nan")), (dx, 7.0)):
        if extra:
            gap = rows_written._base[:, rows_written.size(1) :]
            torch.testing.assert_close(gap, torch.full_like(gap, poison), equal_nan=True, rtol=0, atol=0)
    assert saved is None or torch.equal(saved.nan_to_num(), gates.nan_to_num()), (
        "backward wrote to what was saved"
    )
    result.update(grads, dx=take(x, dx, lengths, order), dh0=d_initial.h, dc0=d_initial.c)
    return result


def projected_cell(w_hr, x, state, w_ih, w_hh, b_ih, b_hh):
    """One step of an LSTM whose h is a projection, which torch has no cell for."""
    i, f, g, o = (x @ w_ih.T + b_ih + state[0] @ w_hh.T + b_hh).chunk(4, 1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return (o.sigmoid() * c.tanh()) @ w_hr.T, c


def oracle(case: Case) -> dict[str, object]:
    """The same by torch, each sequence alone, in float64."""
    leaves = {name: v.clone().requires_grad_() for name, v in case.values.items() if not name.startswith("d")}
    xs = [x.clone().requires_grad_() for x in case.x]
    zeros = torch.zeros(case.values["w_ih"].size(0), dtype=torch.float64)
    b_ih, b_hh = leaves.get("b_ih", zeros), leaves.get("b_hh", zeros)
    cell = {
        "LSTM": torch.lstm_cell,
        "GRU": torch.gru_cell,
        "RNN_TANH": torch.rnn_tanh_cell,
        "RNN_RELU": torch.rnn_relu_cell,
    }
    if case.projection:
        cell["LSTM"] = partial(projected_cell, leaves["w_hr"])
    loss, ys, hs, cs = torch.zeros((), dtype=torch.float64), [], [], []
    for i, x in enumerate(xs):
        h, c = leaves["h0"][i : i + 1], leaves["c0"][i : i + 1]
        y = {}
        for t in reversed(range(len(x))) if case.reverse else range(len(x)):
            state = (h, c) if case.lstm else h
            new = cell[case.cell](x[t : t + 1], state, leaves["w_ih"], leaves["w_hh"], b_ih, b_hh)
            h, c = new if case.lstm else (new, c)
            y[t] = h[0]
        ys.append(
            torch.stack([y[t] for t in range(len(x))])
            if len(x)
            else torch.zeros(0, case.output, dtype=torch.float64)
        )
        hs.append(h[0])
        cs.append(c[0])
        loss = loss + (ys[-1] * case.dy[i]).sum() + (h[0] * case.values["dh_n"][i]).sum()
        if case.lstm:
            loss = loss + (c[0] * case.values["dc_n"][i]).sum()
    if loss.requires_grad:
        loss.backward()
    grad = lambda v: torch.zeros_like(v) if v.grad is None else v.grad  # noqa: E731
    stack = lambda v, n: torch.stack(v).detach() if v else torch.zeros(0, n, dtype=torch.float64)  # noqa: E731
    result = {
        "y": [y.detach() for y in ys],
        "h_n": stack(hs, case.output), "c_n": stack(cs, case.hidden) if case.lstm else None,
        "dx": [grad(x) for x in xs], "dh0": grad(leaves["h0"]), "dc0": grad(leaves["c0"]) if case.lstm else None,
        "dw_ih": grad(leaves["w_ih"]), "dw_hh": grad(leaves["w_hh"]),
    }  # fmt: skip
    if case.projection:
        result["dw_hr"] = grad(leaves["w_hr"])
    if case.bias:
        result.update(db_ih=grad(leaves["b_ih"]), db_hh=grad(leaves["b_hh"]))
    return result


def tolerance(case: Case, name: str) -> float:
    """64 eps sqrt(K + T), K the longest sum: over columns, and over rows for the gradients of weights."""
    k = 4 * case.hidden + case.projection + case.input + max(case.lengths, default=0)
    if name.startswith(("dw", "db")):
        k += sum(case.lengths)
    # Three products keep 16 bits of a number, one keeps 8; a bfloat16 row is rounded once more.
    precision = "medium" if case.narrow else case.precision
    eps = {"highest": torch.finfo(case.dtype).eps / 2, "high": 2.0**-17, "medium": 2.0**-9}[precision]
    return {"highest": 128, "high": 4, "medium": 4}[precision] * eps * k**0.5


def assert_close(case: Case, got: dict, want: dict) -> None:
    for name, value in want.items():
        if value is None or name not in got:
            continue
        if isinstance(value, list):
            a, b = (
                torch.cat(got[name] or [torch.zeros(0)]).double(),
                torch.cat(value or [torch.zeros(0)]).double(),
            )
        else:
            a, b = got[name].double(), value
        assert a.shape == b.shape, name
        if not a.numel():
            continue
        scale = max(1.0, b.abs().max().item())
        error = (a - b).abs().max().item()
        assert error <= tolerance(case, name) * scale, (
            f"{name}: error {error:.3g}, allowed {tolerance(case, name) * scale:.3g}"
        )
