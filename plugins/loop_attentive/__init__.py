"""Loop Returns data in, Attentive events out, each once."""
