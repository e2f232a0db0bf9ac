"""Foundation: the documents, the open questions and the template that every later experiment stands on."""
