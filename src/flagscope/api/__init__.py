"""What `import flagscope` offers: scan, inspect and head_overlaps, and what they return."""
