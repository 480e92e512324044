"""Ours against peers, side by side in one run, printed as ratios. See README.md in this folder."""
