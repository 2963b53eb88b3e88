"""Caser against its formula in float64."""

from __future__ import annotations

import torch

from cove_dist.models.sequential.caser import Caser
from tests.unit.models.lists import D, batch, linear, ready


def test_equals_filters_over_the_window_that_ends_at_each_position() -> None:
    window, wide, tall = 3, 4, 2
    model = ready(Caser(D, 3, 4, window=window, horizontal_filters=wide, vertical_filters=tall))
    items, mask = batch([7, 1, 5], slots=7)
    hidden = model(items, mask)
    for b, length in enumerate(mask.sum(dim=1).tolist()):
        for t in range(length):
            matrix = torch.zeros(window, D, dtype=torch.float64)
            for row, place in enumerate(range(t - window + 1, t + 1)):
                if place >= 0:
                    matrix[row] = items[b, place]
            values = [
                model.vertical.weight[f] @ matrix[:, column] + model.vertical.bias[f]
                for column in range(D)
                for f in range(tall)
            ]
            for height, filters in enumerate(model.horizontal, start=1):
                for f in range(wide):
                    kernel = filters.weight[f].T
                    places = [
                        torch.relu((kernel * matrix[i : i + height]).sum() + filters.bias[f])
                        for i in range(window - height + 1)
                    ]
                    values.append(max(places))
            expected = linear(model.output, torch.relu(linear(model.joint, torch.stack(values))))
            torch.testing.assert_close(hidden[b, t], expected)
