"""What a run says about its settings before it trains, legal but seldom meant; and at its end."""

from collections.abc import Iterator

from deep_ranking.config import TrainConfig
from deep_ranking.files.words import counted
from deep_ranking.training.early_stopping import EarlyStopping
from deep_ranking.training.resuming import RunState


def resumed_line(num_epochs: int, epochs: int) -> str:
    """Return where a run goes on, or that there is nothing left to do.

    Args:
        num_epochs: epochs that it has.
        epochs: epochs that are wanted in all.
    """
    if num_epochs < epochs:
        return f"Going on after epoch {num_epochs} of {epochs}."
    return (
        f"The run has {_epochs(num_epochs)} already: nothing is trained; to go on, give --epochs "
        f"above {num_epochs}."
    )


def schedule_notes(
    config: TrainConfig, num_batches: int, *, num_epochs: int, planned_epochs: int | None = None
) -> Iterator[str]:
    """Yield a line for each surprise in the learning rate of the epochs to come.

    Args:
        config: the run's settings.
        num_batches: batches an epoch.
        num_epochs: epochs that are done.
        planned_epochs: the total before the run was resumed; None for a new run.
    """
    if num_epochs >= config.epochs:
        return
    head = min(config.head_epochs, config.epochs)
    first = max(num_epochs, config.start_epoch)
    for begin, end, what in (
        (config.start_epoch, head, f"the {_epochs(head)} of --head_epochs"),
        (max(head, config.start_epoch), config.epochs, "the run" if head == 0 else "the rest"),
    ):
        steps = (end - begin) * num_batches
        if end > max(first, begin) and config.warmup_steps > steps:
            yield (
                f"The warm-up of {counted(config.warmup_steps, 'batch')} is longer than {what}, "
                f"{counted(steps, 'batch')}: the learning rate gets to "
                f"{steps / config.warmup_steps:.0%} of what was asked for at most; lower "
                "--warmup_steps."
            )
    if config.decay == "cosine" and planned_epochs not in (None, config.epochs):
        yield (
            f"The run was planned for {_epochs(planned_epochs or 0)} and now has {config.epochs}: "
            f"--decay cosine is rescaled to the new total, so the learning rate "
            f"jumps {'up' if config.epochs > (planned_epochs or 0) else 'down'} here."
        )


def end_notes(config: TrainConfig, state: RunState, num_left_out: int) -> Iterator[str]:
    """Yield a line if a run stopped early, and one if images or triplets were left out."""
    if EarlyStopping(config, state).has_stopped:
        noun = "validation" if config.validates else "epoch"
        patience = counted(state.num_no_better, noun)
        yield f"Stopped early after epoch {state.num_epochs}: no better for {patience}."
    if num_left_out:
        of_file = config.batches == "triplets" and not config.draws_triplets
        what = counted(num_left_out, "triplet" if of_file else "image")
        yield f"{what} left out: a missing or broken image."


def _epochs(number: int) -> str:
    return counted(number, "epoch", "epochs")
