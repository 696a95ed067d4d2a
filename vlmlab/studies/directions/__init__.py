"""The experiments of the book's section 9: one file per direction that the survey announced in 2023.

Every file asks one question, measures a baseline in seconds, and takes a function of the reader's in its place.
"""
