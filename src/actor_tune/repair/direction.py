"""The refusal direction and how activations lie along it. Pure: tensors in, tensors and numbers out."""

from dataclasses import dataclass

import numpy
import torch
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score


@dataclass(frozen=True)
class RefusalDirection:
    """The refusal direction at one block.

    - `vector`: R, (d_model) float32: mean harmful minus mean harmless activation (paper, Eq. 1).
    - `origin`: o, (d_model) float32: the mean harmless activation. Differs from the paper: its projections have no
      origin, so that their sign means nothing (see `docs/method.md`).
    """

    vector: torch.Tensor
    origin: torch.Tensor

    @property
    def length(self) -> float:
        """||R||: the distance between the harmless and the harmful mean, in activation units."""
        return float(self.vector.norm())

    @property
    def unit(self) -> torch.Tensor:
        """R / ||R||, (d_model)."""
        return self.vector / self.vector.norm()

    def position(self, activations: torch.Tensor) -> torch.Tensor:
        """Where activations (prompt, d_model) lie between the two means: (prompt); 0 harmless mean, 1 harmful mean."""
        return (activations - self.origin) @ self.unit / self.length


def refusal_direction(harmful: torch.Tensor, harmless: torch.Tensor) -> RefusalDirection:
    """From activations (prompt, d_model) float32 of harmful and of harmless prompts (paper, Eq. 1)."""
    origin = harmless.mean(dim=0)
    return RefusalDirection(harmful.mean(dim=0) - origin, origin)


def raw_projection(activations: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Proj_R(a) = (R.a / ||R||^2) R for activations (prompt, d_model): (prompt, d_model) (paper, Eq. 3)."""
    return (activations @ vector / vector.square().sum()).unsqueeze(-1) * vector


def tsne_silhouette(harmful: torch.Tensor, harmless: torch.Tensor, seed: int) -> float:
    """The paper's criterion for a layer (section 3.2): silhouette, in -1..1, of the two kinds in a 2-D t-SNE map.

    The paper gives no settings: scikit-learn's defaults, with the perplexity lowered where there are few prompts.
    """
    points = torch.cat([harmful, harmless]).numpy()
    kinds = numpy.array([1] * len(harmful) + [0] * len(harmless))
    perplexity = min(30.0, (len(points) - 1) / 3)
    flat = TSNE(n_components=2, perplexity=perplexity, random_state=seed).fit_transform(points)
    return float(silhouette_score(flat, kinds))
