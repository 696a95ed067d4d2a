"""What systems that detect and systems that segment share; each file holds one idea."""
