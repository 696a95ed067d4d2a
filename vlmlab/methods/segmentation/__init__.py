"""Systems of survey sections 7.2 and 7.3 that segment, one file each."""
