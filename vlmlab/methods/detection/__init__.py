"""Open-vocabulary detectors of survey section 7.1, one file each."""
