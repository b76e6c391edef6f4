"""What is measured of trained networks: robustness, spectra, retraining."""
