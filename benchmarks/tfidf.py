"""TF-IDF with logistic regression on the documents a text run is judged on: what its linear probe stands beside.

    python benchmarks/tfidf.py data=imdb

Takes overrides of run.py. The same examples, tokens and cut as the probe sees; the penalty is chosen on a part of
the training documents. Writes benchmarks/results/tfidf.md.
"""

import sys
from datetime import date
from pathlib import Path

import hydra
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from ssl_zoo import run

RESULTS = Path(__file__).parent / "results" / "tfidf.md"


def documents(data: object, split: str) -> tuple[list[str], np.ndarray]:
    """Each document as its tokens' numbers joined by spaces, and the labels."""
    texts, labels = [], []
    for batch in data.eval_batches(split, 256):  # type: ignore[attr-defined]
        texts += [" ".join(f"t{i}" for i in row if i) for row in batch.views[0].tolist()]
        labels += batch.labels.tolist()
    return texts, np.array(labels)


def main() -> None:
    with hydra.initialize_config_dir(str(run.CONF), version_base="1.3"):
        data = run.build_data(hydra.compose("config", sys.argv[1:]))
    (train, y), (test, truth) = documents(data, "train"), documents(data, "test")
    lines = ["| features | C | test accuracy |", "| --- | ---: | ---: |"]
    for name, span in (("tokens", (1, 1)), ("tokens and pairs of tokens", (1, 2))):
        vectorizer = TfidfVectorizer(ngram_range=span, min_df=2, sublinear_tf=True)
        x = vectorizer.fit_transform(train)
        fit, validation = train_test_split(np.arange(len(y)), test_size=0.2, random_state=0, stratify=y)
        scores = {
            c: LogisticRegression(C=c, max_iter=1000).fit(x[fit], y[fit]).score(x[validation], y[validation])
            for c in (1, 10, 100)
        }
        best = max(scores, key=lambda c: scores[c])
        accuracy = LogisticRegression(C=best, max_iter=1000).fit(x, y).score(vectorizer.transform(test), truth)
        lines.append(f"| TF-IDF of {name} | {best} | {accuracy:.1%} |")
        print(lines[-1], flush=True)
    command = f"`python benchmarks/tfidf.py {' '.join(sys.argv[1:])}`"
    head = f"{command}, {date.today()}, {len(y):,} training and {len(truth):,} test documents"
    RESULTS.write_text("\n".join(["# TF-IDF with logistic regression", "", head, "", *lines, ""]))


if __name__ == "__main__":
    main()
