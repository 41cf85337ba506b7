"""Fine-tuning, comparing templates, exporting and tracking; needs the extra ``train``."""
