"""Commands for folders of images: what is in one, and a trained learner adapted to one."""
