"""Real speech, synthesised at run time: speakers, sentences, corpora."""
