"""Foundation: documents, open questions and the template that every later experiment stands on."""
