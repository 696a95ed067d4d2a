"""What tests are made with, also those of systems that live outside of this package."""
