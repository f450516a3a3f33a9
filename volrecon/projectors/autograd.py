"""Gradients through a projector, for torch."""

from collections.abc import Callable

import torch

from volrecon.projectors.operator import Operator


def differentiable(A: Operator) -> Callable[[torch.Tensor], torch.Tensor]:
    """`A` as a torch function of a (z, y, x) tensor; its gradient is `A.T`, itself differentiable.

    With an unmatched pair (`A.matched` is False) the gradient is the backprojection, not the exact derivative.
    """

    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: torch.Tensor) -> torch.Tensor:
            projected: torch.Tensor = A(x.detach())
            return projected

        @staticmethod
        def backward(ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
            back: torch.Tensor = Backward.apply(gradient)  # type: ignore[no-untyped-call]
            return back

    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, y: torch.Tensor) -> torch.Tensor:
            back: torch.Tensor = A.T(y.detach())
            return back

        @staticmethod
        def backward(ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
            projected: torch.Tensor = Forward.apply(gradient)  # type: ignore[no-untyped-call]
            return projected

    return Forward.apply
