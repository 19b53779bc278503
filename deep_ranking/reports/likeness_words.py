"""What the parts of a similarity mean, in words: for people who do not know the network.

`explain` splits the cosine of two embeddings into what the ConvNet, the branches and the bias add.
Shares are of that cosine. What is below 0 % speaks against similarity, so others can be above
100 %.
"""

from collections.abc import Mapping

from deep_ranking.files.words import in_percent

BIAS = "bias"
# Below this cosine, parts in percent of it would be huge and mean nothing.
MIN_COSINE = 0.05
MEANINGS = {
    "ConvNet": "things and their shapes (ConvNet)",
    "branch 1": "the look of the whole, coarse (branch 1)",
    "branch 2": "the look of the whole, coarser (branch 2)",
    "colours": "colours",
    "textures": "textures",
    "hues": "which colours are where (layout)",
    "edges": "which edges are where (layout)",
    BIAS: "common to all pictures (bias)",
}


def parts_in_words(
    parts: Mapping[str, float], names: Mapping[str, str], cosine: float
) -> list[str]:
    """Return sentences that say where a similarity comes from.

    Args:
        parts: for each part what it adds to the cosine; "bias" among them.
        names: for each part what it is called.
        cosine: the sum.

    Example:
        >>> parts, names = {"convnet": 0.6, "bias": 0.2}, {"convnet": "ConvNet", "bias": "bias"}
        >>> parts_in_words(parts, names, 0.8)[0]
        'Most of the likeness, 75 %, comes from things and their shapes (ConvNet).'
    """
    if cosine < MIN_COSINE:
        return ["The two pictures are hardly alike, so there is no likeness to share out."]
    shares = {name: value / cosine for name, value in parts.items()}
    bias = shares.pop(BIAS)
    first = max(shares, key=lambda name: shares[name])
    much = "Most" if shares[first] > 0.5 else "The largest part"
    comes = f"comes from {MEANINGS[names[first]]}"
    sentences = [f"{much} of the likeness, {in_percent(shares[first])}, {comes}."]
    others = [
        f"{in_percent(share)} from {MEANINGS[names[name]]}"
        for name, share in shares.items()
        if name != first
    ]
    if others:
        sentences.append(f"Besides, there is {' and '.join(others)}.")
    sentences.append(
        f"The remainder, {in_percent(bias)}, is what the model sees in every picture, whatever it "
        "shows (bias): it has no place in a picture."
    )
    if min(bias, *shares.values()) < 0:
        sentences.append("What is below 0 % makes the two less alike.")
    return sentences
