"""TF-IDF against its formula, and its classifier against scikit-learn's own way."""

import math

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from ssl_zoo.evaluators.tfidf import WORD_PATTERN, tfidf_cosines, tfidf_predictions, word_counts


def test_cosine_is_that_of_the_formula() -> None:
    left, right = ["A dog runs", "dog", "", "I a"], ["a Dog dog", "cat", "cat", "a cat !"]
    sentences = [text.lower().replace("!", "").split() for text in (*left, *right)]

    def weights(words: list[str]) -> dict[str, float]:
        return {word: words.count(word) * math.log(8 / sum(word in other for other in sentences)) for word in words}

    for found, i in zip(tfidf_cosines(left, right), range(4), strict=True):
        u, v = weights(sentences[i]), weights(sentences[i + 4])
        norms = math.hypot(*u.values()) * math.hypot(*v.values())
        assert found == pytest.approx(sum(u[word] * v[word] for word in u.keys() & v.keys()) / norms if norms else 0)


def test_classifier_is_one_that_never_saw_the_tested_texts() -> None:
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(60)])
    labels = np.arange(200) % 2
    shares = np.stack([np.linspace(1, 2, 60), np.linspace(2, 1, 60)])
    texts = [" ".join(rng.choice(words, 8, p=shares[label] / shares[label].sum())) for label in labels]
    tested = np.arange(200) >= 150
    train, test = texts[:150], [f"{text} unknown" for text in texts[150:]]
    vectorizer = TfidfVectorizer(token_pattern=WORD_PATTERN, ngram_range=(1, 2))
    model = LogisticRegression(C=10, max_iter=1000).fit(vectorizer.fit_transform(train), labels[:150])
    expected = model.predict(vectorizer.transform(test))
    found = tfidf_predictions(word_counts([train + test]), labels, tested)
    assert (found == expected).all()
    assert 0.5 < (found == labels[150:]).mean() < 1


def test_pairs_are_told_apart_by_what_they_share() -> None:
    left = [f"word{i % 7} and word{i % 5}" for i in range(80)]
    right = [text if i % 2 else "something else" for i, text in enumerate(left)]
    labels = np.arange(80) % 2
    tested = np.arange(80) >= 60
    assert (tfidf_predictions(word_counts([left, right]), labels, tested) == labels[60:]).all()
