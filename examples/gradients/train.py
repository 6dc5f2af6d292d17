"""A Horovod script whose gradients Lockstep exchanges: one line differs, marked below.

A small transformer learns to turn sequences round, on data made up anew in every step. Runs as well under
`horovodrun -np 2 python train.py` where Lockstep is installed.
"""

import argparse

import horovod.torch as hvd
import torch
from torch import nn

import lockstep

WORDS = 32
LENGTH = 12


class Reverser(nn.Module):
    """Sees a sequence, and says at each place what stands there from behind."""

    def __init__(self, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width)
        self.places = nn.Parameter(torch.randn(LENGTH, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.answer = nn.Linear(width, WORDS)

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:
        """Logits per place and word."""
        logits: torch.Tensor = self.answer(self.layers(self.words(sequences) + self.places))
        return logits


def main() -> None:
    """Trains, evaluates now and then, and prints what the first rank sees."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=32, help="sequences per step of one rank")
    options = parser.parse_args()

    hvd.init()
    torch.manual_seed(1)
    model = Reverser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.001 * hvd.size())
    # The line. It was: hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
    # Without transport="tcp", the fast one, Horovod carries the gradients.
    optimizer = lockstep.DistributedOptimizer(optimizer, named_parameters=model.named_parameters(), transport="tcp")
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)

    torch.manual_seed(100 + hvd.rank())
    for step in range(1, options.steps + 1):
        sequences = torch.randint(WORDS, (options.batch_size, LENGTH))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(sequences).flatten(0, 1), sequences.flip(1).flatten())
        loss.backward()
        optimizer.step()
        schedule.step()
        statistics = getattr(optimizer, "take_statistics", dict)()  # Horovod's own tells none
        lockstep.report(step=step, loss=loss.item(), samples=options.batch_size, **statistics)
        if step % 50 == 0:
            model.eval()
            with torch.no_grad():
                right = (model(sequences).argmax(2) == sequences.flip(1)).float().mean()
            model.train()
            right = hvd.allreduce(right, name="right")
            if hvd.rank() == 0:
                print(f"step {step}: loss {loss.item()!r}, right {right.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
