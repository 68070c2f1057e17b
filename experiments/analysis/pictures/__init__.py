"""Pictures of one question each: drift, a sweep of two settings, clients before and after fine-tuning."""
