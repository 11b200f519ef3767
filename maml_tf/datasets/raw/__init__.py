"""What lies on disk before a data set is prepared: layouts, image files, builders."""
