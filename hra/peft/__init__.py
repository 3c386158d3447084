"""LoRA folders as PEFT saves them <-> Submodels."""
