"""An adapter against a base, a merged model, or another adapter."""
