"""Launch LoRA training, survive what befalls it, and finish with the bits an undisturbed run would have given."""

__version__ = "0.1.0"
