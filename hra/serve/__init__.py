"""One resident backbone that answers everybody, each by a Submodel of their own."""
