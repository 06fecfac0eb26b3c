"""Fine-tunings as rows: what was asked, how far it is, how it ended, which model came of it. Not what is in them."""
