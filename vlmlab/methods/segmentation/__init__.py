"""Open-vocabulary and weakly supervised segmenters of survey sections 7.2 and 7.3, one file each."""
