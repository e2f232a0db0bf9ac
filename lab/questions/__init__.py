"""The lab's questions: which are open, and which experiments ask them."""
