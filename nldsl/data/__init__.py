"""Text corpora that come with nldsl, each one folder with a manifest, read without torch."""
