"""SavedModels, and what lies beside them."""
