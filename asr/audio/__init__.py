"""Opening audio, features and augmentation."""
