"""The exercises of the book, one file per chapter; `vlmlab.book.exercise` says what an exercise is."""
