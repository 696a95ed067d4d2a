"""Expensive once, cheap often: what a frozen encoder said of images is cached here, in memory and on disk."""
