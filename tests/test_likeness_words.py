from deep_ranking.reports.likeness_words import parts_in_words

NAMES = {"convnet": "ConvNet", "branch_1": "colours", "branch_2": "textures", "bias": "bias"}


def words_of(*parts):
    values = dict(zip(NAMES, parts, strict=True))
    return parts_in_words(values, NAMES, sum(parts))


def test_shares_are_of_the_cosine_and_the_strongest_part_comes_first():
    # 0.2 + 0.32 + 0.08 + 0.2 = 0.8
    first, others, rest = words_of(0.2, 0.32, 0.08, 0.2)
    assert first == "The largest part of the likeness, 40 %, comes from colours."
    assert others == (
        "Besides, there is 25 % from things and their shapes (ConvNet) and 10 % from textures."
    )
    assert rest.startswith("The remainder, 25 %, is what the model sees in every picture")


def test_most_is_more_than_half_and_what_is_negative_is_explained():
    words = words_of(0.9, 0.0, -0.18, 0.18)  # 0.9
    assert words[0] == "Most of the likeness, 100 %, comes from things and their shapes (ConvNet)."
    assert "-20 % from textures" in words[1]
    assert words[-1] == "What is below 0 % makes the two less alike."


def test_pictures_that_are_not_alike_have_no_shares():
    (words,) = words_of(0.5, -0.3, -0.2, 0.01)
    assert "hardly alike" in words and "%" not in words
