"""The server: OpenAI's transcriptions, a stream of samples, figures, a page.

All that it knows of the one that computes is `hra.serve.interface`.
"""
