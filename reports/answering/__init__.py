"""The answer in words: the question, the load told first, the sentence, the headline."""
