# ruff: noqa: D100 (its first cell says what it is)
# %% [markdown]
# # A tour of Deep Ranking
#
# Everything that a command does is a function or a class of `deep_ranking`. This tour learns
# scikit-learn's handwritten digits from a random start: no download, about a minute. Run it as a
# script, `python docs/tour.py`, or open it as the notebook `docs/tour.ipynb`, where results are
# shown as tables and pictures.

# %%
import shutil
import tempfile
from pathlib import Path

import deep_ranking as dr

folder = Path(tempfile.mkdtemp(prefix="tour-"))
digits = dr.write_digits(folder / "digits")  # folders: train, held_back, unseen

# %% [markdown]
# ## Sample
#
# A triplet has a query, a positive (here: the same digit) and a negative (another digit).

# %%
config = dr.SamplingConfig(num_pos_images=2, num_neg_images=2)
triplets = dr.sample(digits.train, folder, config)
print(triplets)

# %% [markdown]
# ## Train
#
# Only the head and the two shallow branches learn here; the backbone keeps its random weights. For
# photos, start from `weights="imagenet"`.

# %%
network = dr.NetworkConfig(
    image_size=32,
    backbone="mobilenet",
    weights=None,
    hidden_layers=0,
    dropout=0.0,
    embedding_size=64,
)
model_file = folder / "digits.h5"
model = dr.train(
    dr.TrainConfig(
        triplets=folder / "triplets.txt",
        output=model_file,
        network=network,
        augmentation=None,
        train_from="head",
        optimizer="adam",
        learning_rate=0.001,
        gap=0.2,
        epochs=1,
        steps_per_epoch=60,
    )
)

# %% [markdown]
# ## Evaluate
#
# Functions take the path of a model file, or a model in memory. These images of the digits 0 to 6
# were held back.

# %%
evaluation = dr.evaluate(model, digits.held_back)
print(evaluation)

# %% [markdown]
# ## Calibrate
#
# A calibrated model says how probable it is that two images are of one class.

# %%
calibration = dr.calibrate(model_file, digits.held_back)
print(calibration)

# %%
first, second = sorted((digits.held_back / "3").iterdir())[:2]
comparison = dr.compare(model_file, first, second)
print(comparison)

# %% [markdown]
# ## Index and search

# %%
indexed = dr.index_images(folder / "index", model=model_file, images=digits.held_back)
print(indexed)

# %%
queries = [sorted((digits.train / name).iterdir())[0] for name in ("0", "3", "5")]
results = dr.Collection.open(folder / "index").search(queries, top=6)
print(results)

# %% [markdown]
# ## Find duplicates
#
# After a file is copied, indexing again adds only what is new. The threshold is small because this
# network places all images of a digit near each other.

# %%
shutil.copy(first, first.with_name("copy.png"))
dr.index_images(folder / "index")
duplicates = dr.find_duplicates(folder / "index", threshold=0.001)
print(duplicates)

# %% [markdown]
# ## Explain
#
# Where does the similarity of two images come from? The backbone, which did not learn, adds nothing
# here; the shallow branches do.

# %%
explanation = dr.explain(model_file, first, second)
print(explanation)
