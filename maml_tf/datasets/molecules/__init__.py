"""Molecules that were measured in many assays: tables, splits by assay, features, tasks."""
