"""Learn now: a new model by what people answered, its index, and the way back."""
