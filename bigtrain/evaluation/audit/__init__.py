"""An audit of a trained generator: what its figures do not tell, as numbers, pictures and a sentence each."""
