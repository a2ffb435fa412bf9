"""TF-IDF, the baseline of sentence tasks that knows words and nothing else.

Sparck Jones, "A Statistical Interpretation of Term Specificity and Its Application in Retrieval", Journal of
Documentation 28 (1972); by scikit-learn.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

WORD_PATTERN = r"(?u)\b\w+\b"
"""What counts as a word; scikit-learn's default leaves out those of one letter."""


def tfidf_cosines(left: Sequence[str], right: Sequence[str]) -> np.ndarray:
    """Cosine of the TF-IDF vectors of each pair of sentences, (n,) float64; 0 for sentences without a word.

    The inverse document frequencies, ln(N / df), are those of the 2n sentences; scikit-learn would add 1.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(token_pattern=WORD_PATTERN, smooth_idf=False).fit([*left, *right])
    vectorizer.idf_ = vectorizer.idf_ - 1
    return np.asarray(vectorizer.transform(left).multiply(vectorizer.transform(right)).sum(axis=1)).ravel()


def word_counts(columns: Sequence[Sequence[str]]) -> list[Any]:
    """How often each text has each word and each pair of adjacent words.

    Args:
        columns: n texts; or several such columns, where an example is a pair.

    Returns:
        A sparse matrix (n, V) per column.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(token_pattern=WORD_PATTERN, ngram_range=(1, 2))
    vectorizer.fit([text for column in columns for text in column])
    return [vectorizer.transform(column) for column in columns]


def tfidf_predictions(counts: Sequence[Any], labels: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Labels that logistic regression (C = 10) on TF-IDF gives to some examples, after training on the others.

    Args:
        counts: one matrix of `word_counts`; or two, of pairs (u, v), whose features are |u - v| and u * v.
        labels: (n,) int64.
        tested: (n,) bool.

    Returns:
        (m,) int64, one label per tested example.
    """
    from scipy.sparse import hstack, vstack
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression

    known = vstack([matrix[~tested] for matrix in counts])
    seen = np.flatnonzero(known.getnnz(axis=0))  # words of tested examples alone are unknown to the model
    weigh = TfidfTransformer().fit(known[:, seen])
    u, *others = [weigh.transform(matrix[:, seen]) for matrix in counts]
    features = hstack([abs(u - others[0]), u.multiply(others[0])]).tocsr() if others else u
    model = LogisticRegression(C=10, max_iter=1000).fit(features[~tested], labels[~tested])
    return model.predict(features[tested])
