"""Fine-tuning, comparing layouts, exporting and tracking; needs the extra ``train``."""
