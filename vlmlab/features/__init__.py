"""Expensive once, cheap often: what a frozen encoder said of images is kept here, in memory and on disk."""
