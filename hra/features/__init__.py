"""Wave -> mel -> augmented mel, on the device: pure, jittable, per utterance."""
