"""Linear centred kernel alignment (CKA): how alike two representations of the same examples are, whatever their axes.

Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019,
https://arxiv.org/abs/1905.00414; with the unbiased estimate of HSIC of Song, Smola, Gretton, Bedo, Borgwardt, "Feature
Selection via Dependence Maximization", JMLR 2012, Equation 4, as Nguyen, Raghu, Kornblith, ICLR 2021,
https://arxiv.org/abs/2010.15327 use it: the plain estimate is near 1 for unrelated features that are wider than there
are examples. Letters: N examples, D width.

The estimate is the mean product of U-centred Gram matrices (Székely and Rizzo, "Partial Distance Correlation with
Methods for Dissimilarities", Annals of Statistics 2014, Section 3), so that each representation is prepared once.
"""

import numpy as np

MIN_EXAMPLES = 4


def centred_gram(x: np.ndarray) -> np.ndarray:
    """The U-centred Gram matrix of features x (N, D): the entries above the diagonal, with length 1.

    Returns:
        (N (N - 1) / 2,) float32; NaN for features that do not vary.

    Raises:
        ValueError: for fewer than four examples.
    """
    n = len(x)
    if n < MIN_EXAMPLES:
        raise ValueError(f"{n} examples: CKA needs {MIN_EXAMPLES} or more")
    x = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)  # changes nothing but the rounding
    size = np.abs(x).max(initial=0.0)
    gram = (x / size) @ (x / size).T if size else np.zeros((n, n))
    np.fill_diagonal(gram, 0.0)
    sums = gram.sum(axis=1) / (n - 2)
    gram += sums.sum() / (n - 1) - sums[:, None] - sums
    above = gram[np.triu_indices(n, 1)]
    length = np.linalg.norm(above)
    return (above / length if length > 1e-9 * n else np.full_like(above, np.nan)).astype(np.float32)


def cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear CKA of x (N, D) and y (N, E): 1 for equal ones up to rotation and scale, about 0 for unrelated ones."""
    return float(centred_gram(x) @ centred_gram(y))
