"""GRU4Rec against its formula in float64."""

from __future__ import annotations

import torch

from cove_dist.models.sequential.gru4rec import GRU4Rec
from tests.unit.models.lists import D, batch, linear, ready

H = 6


def test_equals_layers_of_gated_units_step_by_step() -> None:
    model = ready(GRU4Rec(D, 3, 4, num_layers=2, hidden_dim=H))
    items, mask = batch([7, 2, 5], slots=7)
    hidden = model(items, mask)
    for b, length in enumerate(mask.sum(dim=1).tolist()):
        x = items[b, :length]
        for layer in model.layers:
            state, states = torch.zeros(H, dtype=torch.float64), []
            for t in range(length):
                from_input = layer.weight_ih_l0 @ x[t] + layer.bias_ih_l0
                from_state = layer.weight_hh_l0 @ state + layer.bias_hh_l0
                reset = torch.sigmoid(from_input[:H] + from_state[:H])
                update = torch.sigmoid(from_input[H : 2 * H] + from_state[H : 2 * H])
                candidate = torch.tanh(from_input[2 * H :] + reset * from_state[2 * H :])
                state = (1 - update) * candidate + update * state
                states.append(state)
            x = torch.stack(states)
        torch.testing.assert_close(hidden[b, :length], linear(model.output, x))
