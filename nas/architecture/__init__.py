"""The document that describes a network, the space of documents with choices, and the catalogue of shipped ones."""
