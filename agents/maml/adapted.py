"""Which pieces of a policy's parameters are adapted, [M, A], and which all tasks share, in theta [P]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from metarl.agents.policy import GaussianPolicy, Layers


@dataclass(frozen=True)
class Adapted:
    """Selection of pieces of a policy's flat parameters. ValueError for a name that there is not."""

    policy: GaussianPolicy
    """Architecture."""
    names: tuple[str, ...]
    """all, head, or names of pieces."""

    def __post_init__(self) -> None:
        known = {**dict.fromkeys(self.policy.pieces, ""), "all": "", "head": ""}
        for name in self.names:
            if name == "context" and not self.policy.context_size:
                raise ValueError(
                    "agent.adapted has context, but there is none; set agent.context_parameters, for instance 5"
                )
            if name not in known:
                raise ValueError(
                    f"agent.adapted has {name!r}; its names are all, head, {', '.join(self.policy.pieces)}"
                )
        if not self.names:
            raise ValueError("agent.adapted is empty, so nothing would be adapted; name at least one piece, or all")

    @cached_property
    def chosen(self) -> list[bool]:
        """Whether each piece is adapted, in the order of the pieces."""
        last = f"layer{len(self.policy.shapes)}."
        return [
            name in self.names or "all" in self.names or ("head" in self.names and name.startswith(last))
            for name in self.policy.pieces
        ]

    @cached_property
    def frozen(self) -> int:
        """Number of hidden layers, from the first on, that all tasks share: what they return no inner step changes."""
        own = [name for name, adapted in zip(self.policy.pieces, self.chosen, strict=True) if adapted]
        layers = [int(name[5 : name.index(".")]) for name in own if name.startswith("layer")]
        if self.policy.context_as == "inputs" and any(name.startswith("context") for name in own):
            layers.append(1)
        return min(layers, default=len(self.policy.shapes)) - 1

    @cached_property
    def lengths(self) -> list[int]:
        """Lengths of the adapted pieces, in order."""
        return [n for n, own in zip(self.policy.pieces.values(), self.chosen, strict=True) if own]

    @property
    def size(self) -> int:
        """A, the number of adapted parameters of a task."""
        return sum(self.lengths)

    def take(self, parameters: Tensor) -> Tensor:
        """Return the adapted part [M, A] of whole parameters [M, P]."""
        if all(self.chosen):
            return parameters
        return torch.cat(
            [piece for piece, own in zip(self.policy.split(parameters), self.chosen, strict=True) if own], dim=1
        )

    def pieces(self, theta: Tensor, phi: Tensor) -> Sequence[Tensor]:
        """Return all pieces: the adapted ones of phi [M, A], [M, length]; the shared ones of theta [P], [1, length]."""
        own = iter(phi.split(self.lengths, dim=1))
        if all(self.chosen):
            return list(own)
        shared = self.policy.split(theta.unsqueeze(0))
        return [next(own) if adapted else piece for piece, adapted in zip(shared, self.chosen, strict=True)]

    def layers(self, theta: Tensor, phi: Tensor) -> Layers:
        """Return the layers of each task's policy."""
        return self.policy.joined(self.pieces(theta, phi))

    def whole(self, theta: Tensor, phi: Tensor) -> Tensor:
        """Return the whole parameters [M, P]."""
        if all(self.chosen):
            return phi
        return torch.cat([piece.expand(len(phi), -1) for piece in self.pieces(theta, phi)], dim=1)
