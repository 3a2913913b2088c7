"""Operations: one command family a file, and the executor that alone does I/O for them."""
