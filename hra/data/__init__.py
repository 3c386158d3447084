"""Host side of the data: bytes in, batches of K tasks x B utterances out."""
