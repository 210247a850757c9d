"""Who answers this request? Pure: no clock, no randomness, no input or output."""
