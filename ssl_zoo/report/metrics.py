"""What each metric and each cost means, in one line: the report says so where a number stands."""

import re

MEANINGS = {
    r"knn(\d+)?/top1": "Accuracy of a vote of the nearest training examples, weighted by cosine similarity. "
    "Nothing is trained, so it measures the geometry of the features as they are.",
    r"knn_unweighted(\d+)?/top1": "Accuracy of a vote of the nearest training examples, one vote each.",
    r"linear/top1": "Accuracy of multinomial logistic regression on the frozen, standardised features.",
    r"linear/l2": "Penalty of that regression, chosen on a part of the training split.",
    r"linear_sgd/top1": "Accuracy of a linear layer trained by SGD with momentum on the frozen features.",
    r"attentive/top1": "Accuracy of a classifier whose one learned query attends to the tokens of the frozen encoder.",
    r"(linear_sgd|attentive)/lr": "Learning rate of that classifier, chosen on a part of the training split.",
    r"knn_spaces/\w+/top1": "Accuracy of nearest neighbours, one vote each, among features transformed in this way.",
    r"few/\w+/linear": "Accuracy of the linear probe with so many labels per class, mean over samples of the labels.",
    r"few/\w+/knn": "Accuracy of nearest neighbours with so many labels per class, mean over samples of the labels.",
    r"few/\w+/scratch": "Accuracy of the same network trained from random weights with only these labels.",
    r"few/\w+/finetuned": "Accuracy of the whole encoder, fine-tuned with only these labels.",
    r"few/\w+/pixels_\w+": "The same probe on raw pixels.",
    r"few/.*_std": "Standard deviation over the samples of the labels.",
    r"rankme": "Effective rank of the features (RankMe): exp of the entropy of their normalised singular values. "
    "A low value after training means that dimensions have collapsed.",
    r"feature_std": "Mean standard deviation per dimension of the normalised features, times the root of their "
    "number: about 1 when they are spread out, 0 when all are equal.",
    r"alpha_req": "Exponent of the power law by which the variances of the features decay; good ones are near 1.",
    r"lidar": "Effective rank of what tells examples apart, relative to what varies between views of one example.",
    r"alignment": "Mean squared distance between two views of an example on the unit sphere. Lower is better.",
    r"uniformity": "Log of the mean of exp(-2 d²) over pairs of examples on the unit sphere. Lower is better.",
    r"clid/learnability": "How well nearest neighbours predict the clusters that k-means finds in the features.",
    r"clid/dimension": "Intrinsic dimension of the features.",
    r"robustness/clean/top1": "Accuracy of the linear probe on the images whose corrupted copies are classified, too.",
    r"robustness/\w+/top1": "Accuracy of the linear probe on corrupted test images, mean over the severities.",
    r"calibration(_scaled)?/error": "Expected calibration error of the linear probe's probabilities. Lower is better.",
    r"calibration(_scaled)?/loss": "Cross-entropy of the linear probe on the test split, in nats. Lower is better.",
    r"outliers/\w+/auroc_\w+": "Area under the curve of telling test examples from other images; 0.5 is chance.",
    r"segmentation/\w+/miou": "Mean intersection over union of the classes of pixels, from features of patches.",
    r"segmentation/\w+/accuracy": "Share of pixels whose class is right, from features of patches.",
    r"mask/top1": "Share of masked tokens of held-out text that are predicted correctly.",
    r"mask/loss": "Cross-entropy of masked tokens of held-out text, in nats. Lower is better.",
    r"mask/perplexity": "exp of the cross-entropy of masked tokens of held-out text. Lower is better.",
    r"mask/(majority_top1|unigram_perplexity)": "The same of a model that knows only how frequent each token is.",
    r"token_probe/token/top1": "Accuracy with which a linear classifier names a frequent token from its own feature.",
    r"token_probe/(previous|next)/top1": "Accuracy with which a linear classifier names the frequent token before or "
    "after a token from that token's feature: how much of its surroundings a feature holds.",
    r"token_probe/\w+/from_token/top1": "The same of the most likely token, given which token it is: no context.",
    r"classifier/top1": "Accuracy of the classifier that method=supervised trains together with its encoder.",
    r"zero_shot/top1": "Accuracy of the class whose name's embedding is most similar to that of the image.",
    r"retrieval/image_to_text/recall\d+": "Share of test images of which a caption is among so many most similar ones.",
    r"retrieval/text_to_image/recall\d+": "Share of test captions whose image is among so many most similar ones.",
    r"sentence_pairs/\w+/spearman": "Spearman's correlation of the cosine of two sentences with people's scores.",
    r"transfer/mean/top1": "Mean accuracy of logistic regression over the other data sets.",
    r"transfer/\w+/top1": "Accuracy of logistic regression on frozen features of another data set.",
    r"transfer_knn/\w+/top1": "Accuracy of nearest neighbours on frozen features of another data set.",
    r"tfidf/\w+/\w+": "TF-IDF on the same examples, which knows words and nothing else.",
    r"flops": "Floating-point operations of training: forward and backward pass, all views.",
    r"seconds": "Wall-clock seconds of training, without evaluation.",
    r"examples": "Training examples seen, repetitions counted.",
    r"examples/s": "Training examples per second.",
}
"""Pattern of the key -> its meaning."""
AXES = {"flops": "training FLOPs", "seconds": "training seconds", "examples": "training examples"}
"""Costs that accuracies are plotted against: keys of `budget` in the results, and the title of the axis."""
LABEL_KEYS = re.compile(r"few/(\d+|all)/(\w+)")
"""Keys of accuracies by number of labels per class."""


def meaning_of(key: str) -> str:
    """Returns the meaning of a metric or cost; "" for one that is not known."""
    before = "Before training: " if key.startswith("init/") else ""
    key = key.removeprefix("init/")
    found = next((text for pattern, text in MEANINGS.items() if re.fullmatch(pattern, key)), "")
    return before + found if found else ""
